/** Guest time derived from retired instructions: runs repeat exactly. @hot */

import { KernelClock } from './clock.ts'

/** 2024-01-01: a plausible date, the same in every run. */
const START_MS = Date.UTC(2024, 0, 1)

export class DeterministicClock extends KernelClock {
  readonly kind = 'deterministic'
  readonly #nsPerInstruction: number
  /** Nanoseconds skipped while all vCPUs were halted. */
  #skipped = 0
  #live: (() => number) | undefined
  /** Value of `#live` for the instructions already reported. */
  #mark = 0

  constructor(nsPerInstruction = 1) {
    super()
    this.#nsPerInstruction = nsPerInstruction
  }

  /** Reads the vCPUs' instructions in the middle of a slice. Without it, time advances when they are reported. */
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

  /** Nothing to do: time advances only by instructions. */
  pause(): void {}
  resume(): void {}

  protected override setNow(ns: number): void {
    this.#mark = this.#live?.() ?? 0
    this.#skipped = ns - Math.floor(this.instructions * this.#nsPerInstruction)
  }
}
