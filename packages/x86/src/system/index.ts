/** System routines: behaviour of instructions that is too long or too rare for wasm. Dispatched by number. */
import { GuestFault, Left, LEFT, type Core, type Outcome, type SystemRoutine } from '../state/core.ts'
import { deliverException } from '../events/deliver.ts'
import { EXIT, S } from '../state/layout.ts'
import { controlRegisterConditions, controlRegisters } from '../control/control-registers.ts'
import { farTransfers } from './far-transfers.ts'
import { fastCalls } from './fast-calls.ts'
import { PROCEED } from '../state/hooks.ts'
import { machine, machineConditions } from './machine.ts'
import { checkPort, ports } from './ports.ts'
import { stateImages } from '../control/state-images.ts'
import { tables } from './tables.ts'
import { flagRoutines } from './flags.ts'
import { goOn } from './transfer.ts'
import { trappedRoutines } from './trapped.ts'

const ROUTINES: Readonly<Record<string, SystemRoutine>> = {
  ...controlRegisters,
  ...tables,
  ...machine,
  ...ports,
  ...flagRoutines,
  ...farTransfers,
  ...fastCalls,
  ...stateImages,
  ...trappedRoutines,
}
const conditions: Readonly<Record<string, (core: Core) => void>> = {
  ...machineConditions,
  ...controlRegisterConditions,
}
const names = Object.keys(ROUTINES)
export const SYSTEM_ROUTINES: readonly SystemRoutine[] = Object.values(ROUTINES)
/**
 * Checks that precede an instruction's VM exit: conditions that make it undefined, privilege, the I/O permission bitmap. By routine. (SDM Vol. 3C,
 * "Relative Priority of Faults and VM Exits")
 */
const CONDITIONS: readonly (((core: Core) => void) | undefined)[] = names.map((name) =>
  name in ports ? (core) => checkPort(core, core.arg32(0) & 0xffff, core.arg32(1)) : conditions[name],
)

export function systemRoutineNumber(name: string): number {
  const number = names.indexOf(name)
  if (number < 0) throw new Error(`no system routine '${name}'`)
  return number
}

/** For hooks that carry an instruction out themselves. Its arguments are in the `args` slots; it may throw a GuestFault. */
export const systemRoutine = (name: string): SystemRoutine => SYSTEM_ROUTINES[systemRoutineNumber(name)]!

/** Runs routine `id & 0xffff` for the instruction at `record`; `id >>> 16` is the VM exit it can cause (rows/exits.ts), 0 none. */
export function system(core: Core, record: number, id: number): Outcome {
  core.set32(S.record, record)
  try {
    const routine = id & 0xffff
    const condition = CONDITIONS[routine]
    if (condition) condition(core)
    const exit = id >>> 16
    if (exit !== 0 && core.hooks) {
      const answer = core.hooks.intercept(exit)
      if (answer !== PROCEED) return answer
    }
    return SYSTEM_ROUTINES[routine]!(core)
  } catch (fault) {
    if (fault instanceof GuestFault)
      return fault.atNewTask ? deliverInNewTask(core, fault) : core.raise(fault.vector, fault.errorCode)
    if (fault instanceof Left) return LEFT
    throw fault
  }
}

/** The task switch is done, the fault belongs to the new task's first instruction. */
function deliverInNewTask(core: Core, fault: GuestFault): Outcome {
  const delivery = deliverException(core, fault.vector, fault.errorCode)
  if (delivery === 'delivered') return goOn(core)
  if (delivery === 'shutdown') core.set32(S.exit, EXIT.shutdown)
  return LEFT
}
