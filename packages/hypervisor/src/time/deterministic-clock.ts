/** Guest time derived from instructions retired: a run repeats exactly. @hot */

import { KernelClock } from './clock.ts'

/** 2024-01-01, so that a guest's log looks sane and always the same. */
const START_MS = Date.UTC(2024, 0, 1)

export class DeterministicClock extends KernelClock {
  readonly kind = 'deterministic'
  readonly #nsPerInstruction: number
  /** Nanoseconds that nobody ran: skipped while all vCPUs were halted. */
  #skipped = 0
  #live: (() => number) | undefined
  /** What `#live` said for the instructions already reported. */
  #mark = 0

  constructor(nsPerInstruction = 1) {
    super()
    this.#nsPerInstruction = nsPerInstruction
  }

  /** Where instructions can be read in the middle of a slice: sum of the vCPUs'. Without one, time moves when they are reported. */
  setSource(live: () => number): void {
    this.#live = live
    this.#mark = live()
  }

  nowNs(): number {
    const unreported = this.#live ? this.#live() - this.#mark : 0
    const instructions = this.instructions + unreported
    return Math.floor(instructions * this.#nsPerInstruction) + this.#skipped
  }

  wallClockMs(): number {
    return START_MS + Math.floor(this.nowNs() / 1e6)
  }

  override advanceInstructions(count: number): void {
    super.advanceInstructions(count)
    this.#mark += count
  }

  skipToDeadline(): void {
    const deadline = this.nextDeadline()
    if (deadline === Infinity) return
    const missing = deadline - this.nowNs()
    if (missing > 0) this.#skipped += missing
  }

  instructionsToDeadline(): number {
    const deadline = this.nextDeadline()
    if (deadline === Infinity) return Infinity
    return Math.max(0, Math.ceil((deadline - this.nowNs()) / this.#nsPerInstruction))
  }

  /** Nothing to do: no instructions, no time. */
  pause(): void {}
  resume(): void {}

  protected override setNow(ns: number): void {
    this.#mark = this.#live?.() ?? 0
    this.#skipped = ns - Math.floor(this.instructions * this.#nsPerInstruction)
  }
}
