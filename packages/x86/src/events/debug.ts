/** Debug exceptions: instruction breakpoints before an instruction, single step and data breakpoints after it. (SDM Vol. 3B, "Debug Exceptions") */
import type { Core } from '../state/core.ts'
import { S } from '../state/layout.ts'
import { DR6, FLAG } from '../state/register-bits.ts'
import { BREAK_ON, breakpointEnabled, breakpointKind } from '../paging/access/watch.ts'

const DB = 1

/** Whether the instruction about to run was under TF when it began. By core: a step never nests. */
const stepping = new WeakSet<Core>()

/** True when the instruction at RIP meets an instruction breakpoint; RF shields one instruction. An interrupt shadow ends with it. */
export function beforeInstruction(core: Core): boolean {
  const flags = core.get32(S.flags)
  if (flags & FLAG.TF) stepping.add(core)
  else stepping.delete(core)
  const shielded = core.get32(S.shadow) === 2
  core.set32(S.shadow, 0)
  core.set32(S.flags, flags & ~FLAG.RF)
  if (!core.debugging || flags & FLAG.RF || shielded) return false
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
  core.raise(DB)
  return true
}

/** True when the instruction that completed ends in a trap. MOV SS and POP SS hold it back for one instruction. */
export function afterInstruction(core: Core): boolean {
  if (stepping.has(core)) core.pendingDebug |= DR6.singleStep
  if (!core.pendingDebug || core.get32(S.shadow) === 2) return false
  core.raise(DB)
  return true
}

/** Moves what was met into DR6, as the exception is delivered. GD is cleared so that the handler can reach the registers. */
export function enterDebugHandler(core: Core): void {
  const pending = core.pendingDebug
  core.pendingDebug = 0
  core.set32(S.dr6, (core.get32(S.dr6) & ~0xf) | DR6.fixed | pending)
  core.set32(S.dr7, core.get32(S.dr7) & ~0x2000)
}

/** An instruction that ended without completing (a fault): what it met before is forgotten. */
export function forgetDebug(core: Core): void {
  core.pendingDebug &= DR6.singleStep | DR6.taskSwitch
}
