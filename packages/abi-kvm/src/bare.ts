/** The guest ABI `bare`: the guest finds no hypervisor, as on real hardware. */

import type { CpuidResult, X86GuestAbi } from '@nonroot/contracts'
import { HYPERVISOR_PRESENT, Leaf } from './facts.ts'

const TYPE = 'abi-bare'

export const createBareAbi = (): X86GuestAbi => ({
  attach: () => {},
  cpuid(_vcpu: number, leaf: number, _subleaf: number, result: CpuidResult): void {
    if (leaf === 1) result.ecx = (result.ecx & ~HYPERVISOR_PRESENT) >>> 0
    if (leaf >= Leaf.signature && leaf <= Leaf.last) result.eax = result.ebx = result.ecx = result.edx = 0
  },
  readMsr: () => undefined,
  writeMsr: () => undefined,
  hypercall: () => 'unknown',
  reset: () => {},
  save: () => ({ type: TYPE, version: 1, data: {} }),
  restore: () => {},
})
