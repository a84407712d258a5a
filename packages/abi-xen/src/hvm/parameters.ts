/** HVM parameters, and the vector that notifies a vCPU of events. (Xen, "public/hvm/hvm_op.h", "public/hvm/params.h") */

import { isSelf, type Call, type Handler } from '../call.ts'
import type { Domain } from '../domain.ts'
import { fail } from '../facts.ts'
import { PARAMETER } from './state.ts'
import { toNumber } from '../numbers.ts'

const BYTES = 16
/** Parameters that the interface has. */
const COUNT = 39
/** Those that the guest may set; the others are the toolstack's. */
const SETTABLE: ReadonlySet<number> = new Set([PARAMETER.callback])
/** Vectors below are exceptions'. */
const FIRST_VECTOR = 16

const parameter =
  (run: (call: Call, index: number, argument: DataView) => number): Handler =>
  (call) => {
    const argument = call.read(call.args[1]!, BYTES)
    if (!argument) return fail('EFAULT')
    const index = argument.getUint32(4, true)
    if (index >= COUNT) return fail('EINVAL')
    return isSelf(argument.getUint16(0, true)) ? run(call, index, argument) : fail('ESRCH')
  }

/** Bits 63:56: how vCPUs that chose no vector are notified of events. */
const BY = { line: 0n, pin: 1n, vector: 2n } as const
/** Line 1 is what guests write who chose a vector for each vCPU, to say that they take events: machines without lines take it, too. */
const NO_LINE = 1n

/** False: no event would arrive that way. */
function setCallback({ platform }: Domain, value: bigint): boolean {
  const kind = value >> 56n
  if (kind === BY.pin) {
    // PCI segment, bus, device and function, pin.
    if ((value >> 32n) & 0xff_ffffn) return false
    return platform.setCallbackPin?.(Number((value >> 8n) & 0xff_ffffn), Number(value & 3n)) ?? false
  }
  if (kind === BY.line && value !== 0n) return platform.setCallbackLine?.(toNumber(value)) || value === NO_LINE
  const vector = kind === BY.vector ? Number(value & 0xffn) : 0
  if (kind > BY.vector || (vector !== 0 && vector < FIRST_VECTOR)) return false
  platform.setCallbackVector?.(vector)
  return true
}

const set = parameter(({ domain }, index, argument) => {
  if (!SETTABLE.has(index)) return fail('EPERM')
  const value = argument.getBigUint64(8, true)
  if (index === PARAMETER.callback && !setCallback(domain, value)) return fail('EINVAL')
  domain.hvm!.parameters.set(index, value)
  return 0
})

const get = parameter((call, index, argument) => {
  argument.setBigUint64(8, call.domain.hvm!.parameters.get(index) ?? 0n, true)
  return call.write(call.args[1]!, argument) ? 0 : fail('EFAULT')
})

const setUpcallVector: Handler = (call) => {
  const argument = call.read(call.args[1]!, 8)
  if (!argument) return fail('EFAULT')
  const { vcpus, platform } = call.domain
  const vector = argument.getUint8(4)
  if (vector < FIRST_VECTOR) return fail('EINVAL')
  const vcpu = vcpus[argument.getUint32(0, true)]
  if (!vcpu) return fail('ENOENT')
  platform.setUpcallVector?.(vcpu.index, vector)
  return 0
}

const OPERATIONS: Readonly<Record<number, Handler>> = { 0: set, 1: get, 23: setUpcallVector }

/** (operation, argument). */
export const hvmOp: Handler = (call) => OPERATIONS[call.u32(0)]?.(call) ?? fail('ENOSYS')
