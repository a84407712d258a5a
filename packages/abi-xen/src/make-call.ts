/** Executes the hypercall that a vCPU's registers select, and stores its result in them. */

import type { GuestAbiVcpu } from '@nonroot/contracts'
import { AGAIN, NO_RESULT, type Call } from './call.ts'
import type { DomainVcpu } from './domain.ts'
import type { CallStatistics } from './statistics.ts'
import { dispatch, RETURN } from './table.ts'

/** `AGAIN`: the registers have the arguments of the rest. (Xen, "docs/guest-guide/x86/hypercall-abi.rst") */
export function makeCall(
  call: Call,
  vcpu: DomainVcpu,
  registers: GuestAbiVcpu['registers'],
  statistics: CallStatistics,
): number {
  call.vcpu = vcpu
  call.inMulticall = false
  call.note = statistics.note
  const { args } = call
  const number = registers.rax
  // A return has no arguments, and is by far the most frequent call.
  if (number !== RETURN) {
    args[0] = registers.rdi
    args[1] = registers.rsi
    args[2] = registers.rdx
    args[3] = registers.r10
    args[4] = registers.r8
    args[5] = registers.r9
  }
  const result = dispatch(call, number, statistics.count)
  if (result === NO_RESULT) return result
  if (result === AGAIN) {
    registers.rdi = args[0]!
    registers.rsi = args[1]!
    registers.rdx = args[2]!
    registers.r10 = args[3]!
    registers.r8 = args[4]!
    statistics.again.value++
    return result
  }
  if (result < 0) statistics.refused.value++
  registers.rax = BigInt.asUintN(64, BigInt(result))
  return result
}
