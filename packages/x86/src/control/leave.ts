/** How a system routine returns to the run loop. */
import { LEFT, type Core, type Outcome } from '../state/core.ts'
import { S } from '../state/layout.ts'

/** With the RIP in its slot. */
export function leave(core: Core, exit: number): Outcome {
  core.set32(S.exit, exit)
  return LEFT
}

/** With the next instruction's RIP. */
export function leaveAfter(core: Core, exit: number): Outcome {
  core.set64(S.rip, core.nextRip())
  return leave(core, exit)
}
