/** CPUID leaves that say that the hypervisor is Xen. (Xen, "public/arch-x86/cpuid.h") */

import type { Clock, CpuidResult } from '@nonroot/contracts'
import { CPUID, VERSION } from './facts.ts'

/** What all guests find. Leaves of hypervisors that are not there are zero. */
export function hypervisorLeaf(leaf: number, subleaf: number, last: number, clock: Clock, result: CpuidResult): void {
  if (leaf === 1) result.ecx = (result.ecx | CPUID.hypervisorPresent) >>> 0
  if (leaf < CPUID.base || leaf > CPUID.last) return
  result.eax = result.ebx = result.ecx = result.edx = 0
  switch (leaf - CPUID.base) {
    case 0:
      result.eax = last
      ;[result.ebx, result.ecx, result.edx] = CPUID.signature
      break
    case 1:
      result.eax = VERSION
      break
    case 3:
      if (subleaf === 0) result.ecx = clock.tscHz / 1000
      break
  }
}
