/** The processor's hooks: every exception comes here first, and ends the stay in guest code. @hot */

import { EXIT, WALK_FAULT, LEFT, PROCEED, S } from '@nonroot/x86'
import type { Core, EventKind, HookRow, Hooks, Outcome, SecondStageAnswer, WalkFaultAnswer } from '@nonroot/x86'

export class ExceptionHooks implements Hooks {
  readonly #core: Core
  /** The exception that the processor stopped with, -1 none. */
  vector = -1
  errorCode = 0
  /** RIP is to be moved behind the instruction: it asked for the exception. */
  length = 0
  /** While a store to a table is carried out: the machine frame that it goes to, and the page it is seen at. -1: none. */
  tableFrame = -1
  tableLow = 0
  tableHigh = 0

  exception(vector: number, errorCode: number, kind?: EventKind, length = 0): boolean {
    this.vector = vector
    this.errorCode = errorCode
    this.length = length
    // INT1, INT3 and INTO are asked about in the midst of the instruction, which is then left.
    if (kind !== undefined) this.#core.set32(S.exit, EXIT.abandoned)
    return true
  }

  constructor(core: Core) {
    this.#core = core
  }

  take(): number {
    const { vector } = this
    this.vector = -1
    return vector
  }

  /** Asked only during the one instruction that stores to a table. */
  walkFault(low: number, high: number): WalkFaultAnswer {
    if (this.tableFrame < 0 || (low & -4096) !== this.tableLow || high !== this.tableHigh) return WALK_FAULT.guest
    this.#core.paging.frame = this.tableFrame
    return WALK_FAULT.device
  }

  /** SYSCALL is a call of the kernel's, or a program's to its kernel. All else that matters traps by itself. */
  policy(row: HookRow): 'run' | 'trap' {
    return row.mnemonic === 'SYSCALL' ? 'trap' : 'run'
  }
  trapped(): Outcome {
    return this.onSystemCall()
  }
  /** Set by the owner of the hooks. */
  onSystemCall: () => Outcome = () => LEFT

  intercept(): Outcome | typeof PROCEED {
    return PROCEED
  }
  secondStageViolation(): SecondStageAnswer {
    return WALK_FAULT.left
  }
  secondStageMisconfiguration(): SecondStageAnswer {
    return WALK_FAULT.left
  }
  /** There is none in long mode. */
  taskSwitch(): Outcome {
    return LEFT
  }
  tripleFault(): void {}
}
