/** Calls the hooks before an instruction that their policy traps (state/hooks.ts). */
import { NEXT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { PROCEED } from '../state/hooks.ts'
import { S } from '../state/layout.ts'
import { goOn } from './transfer.ts'

/** (row). NEXT continues with the following record, the instruction's own. */
function trapped(core: Core): Outcome {
  core.settleRip()
  const answer = core.hooks!.trapped!(core.arg32(0))
  if (answer === PROCEED) return NEXT
  if (answer !== NEXT) return answer
  core.set64(S.rip, core.nextRip())
  return goOn(core)
}

export const trappedRoutines: Record<string, SystemRoutine> = { trapped }
