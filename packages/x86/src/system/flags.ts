/** Consequences of changes to RFLAGS: TF, AC, newly enabled interrupts. */
import type { Core, Outcome, SystemRoutine } from '../state/core.ts'
import { S } from '../state/layout.ts'
import { updateMode } from '../control/update-mode.ts'
import { goOn } from './transfer.ts'

/** After POPF changed TF or AC. The flags are set already. */
function flagsChanged(core: Core): Outcome {
  core.set64(S.rip, core.nextRip())
  updateMode(core)
  return goOn(core)
}

export const flagRoutines: Record<string, SystemRoutine> = { flagsChanged }
