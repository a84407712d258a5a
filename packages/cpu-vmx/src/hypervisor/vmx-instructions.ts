/**
 * VMX instructions in a guest: the checks that precede nested VMX. Each has its own exit, with the operands in the qualification and the instruction
 * information. (SDM Vol. 3C, "VMX Instruction Reference")
 */

import { CR4, S, VECTOR } from '@nonroot/x86'
import type { ExitHandler } from '../exit/exit-handler.ts'

/** The conditions common to all, in the manual's order. VMX is not offered to guests (CPUID, CR4), so the result is #UD in any case. */
export const vmxInstruction: ExitHandler = ({ core }) => {
  if (!(core.get32(S.cr4) & CR4.vmxe)) return core.raise(VECTOR.UD)
  if (core.get32(S.cpl) !== 0) return core.raise(VECTOR.GP, 0)
  return core.raise(VECTOR.UD)
}
