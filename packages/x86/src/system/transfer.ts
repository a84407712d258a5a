/** How a routine that changes RIP ends: continues in wasm, or returns to the run loop if that must check first. */
import { JUMPED, LEFT, type Core, type Outcome } from '../state/core.ts'
import { deliverException } from '../events/deliver.ts'
import { leave } from '../control/leave.ts'
import { EXIT, S } from '../state/layout.ts'
import { FLAG, DR6 } from '../state/register-bits.ts'

/** Continues at RIP (halves). Mode and flags have been set already. */
export function goOnAt(core: Core, low: number, high: number): Outcome {
  core.set32(S.rip, low)
  core.set32(S.rip + 4, high)
  return goOn(core)
}

/** Continues at the RIP in its slot. */
export function goOn(core: Core): Outcome {
  if (core.pendingDebug & DR6.taskSwitch) return trap(core)
  const flags = core.get32(S.flags)
  if (flags & FLAG.IF && core.get32(S.attention)) return leave(core, EXIT.attention)
  if (flags & FLAG.TF || core.debugging) return leave(core, EXIT.none)
  return JUMPED
}

/** The new task's TSS requests a trap before its first instruction. */
function trap(core: Core): Outcome {
  const delivery = deliverException(core, 1, 0)
  if (delivery === 'delivered') return goOn(core)
  return delivery === 'shutdown' ? leave(core, EXIT.shutdown) : LEFT
}
