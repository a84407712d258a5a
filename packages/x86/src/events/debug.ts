/** Debug exceptions: instruction breakpoints before an instruction, single step and data breakpoints after it. (SDM Vol. 3B, "Debug Exceptions") */
import type { Core } from '../state/core.ts'
import { S } from '../state/layout.ts'
import { DR6, FLAG, VECTOR } from '../state/register-bits.ts'
import { SHADOW } from '../state/shadow.ts'
import { BREAK_ON, breakpointEnabled, breakpointKind } from '../paging/access/watch.ts'


/** Whether the instruction at RIP matches an instruction breakpoint; RF and the shadow of MOV SS suppress it for one instruction. */
export function beforeInstruction(core: Core): boolean {
  const flags = core.get32(S.flags)
  core.stepping = (flags & FLAG.TF) !== 0
  core.set32(S.flags, flags & ~FLAG.RF)
  if (!core.debugging || flags & FLAG.RF || core.get32(S.shadow) === SHADOW.movSs) return false
  const dr7 = core.get32(S.dr7)
  const linear = BigInt.asUintN(core.get32(S.mode) & 2 ? 64 : 32, core.get64(S.rip) + core.get64(S.csBase))
  let hits = 0
  for (let n = 0; n < 4; n++) {
    if (
      breakpointEnabled(dr7, n) &&
      breakpointKind(dr7, n) === BREAK_ON.execute &&
      core.get64(S.dr0 + 8 * n) === linear
    )
      hits |= 1 << n
  }
  if (!hits) return false
  core.pendingDebug |= hits
  core.raise(VECTOR.DB)
  return true
}

/** Called after a completed instruction. MOV SS and POP SS delay breakpoints that they matched, and suppress their own single step. */
export function afterInstruction(core: Core): void {
  if (core.stepping && core.get32(S.shadow) !== SHADOW.movSs) core.pendingDebug |= DR6.singleStep
}

/**
 * Whether a trap of the last instruction must be delivered before the next one, and before interrupts. (SDM Vol. 3A, "Priority Among Concurrent
 * Events")
 */
export const trapIsDue = (core: Core): boolean => core.pendingDebug !== 0 && core.get32(S.shadow) !== SHADOW.movSs

/** Copies matched conditions to DR6 when the exception is delivered. GD is cleared so that the handler can access the registers. */
export function enterDebugHandler(core: Core): void {
  const pending = core.pendingDebug
  core.pendingDebug = 0
  core.set32(S.dr6, (core.get32(S.dr6) & ~0xf) | DR6.fixed | pending)
  core.set32(S.dr7, core.get32(S.dr7) & ~0x2000)
}
