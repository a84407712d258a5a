/** How many instructions a slice has: until the next deadline, at the guest's measured speed. @hot */

import { EXACT_BUDGET } from '@nonroot/contracts'
import type { KernelClock } from '../time/clock.ts'
import { TURN_NS } from './host-thread.ts'

/** Slices of a deterministic clock do not depend on the host's speed. The last instructions of each run one by one, which long slices make rare. */
const DETERMINISTIC_SLICE = 1_000_000
const LEAST_BUDGET = 1000
const MOST_BUDGET = 50_000_000
/** Assumed instructions per nanosecond before the first measurement. */
const FIRST_RATE = 0.05

export class SliceLength {
  readonly #clock: KernelClock
  readonly #deterministic: boolean
  #rate = FIRST_RATE
  /** Of a deterministic machine: the instructions that its slice has left. Where a part of it ends must not change whose turn it is. */
  #left = 0
  /** Guest time at which the slice ends. */
  endNs = 0

  constructor(clock: KernelClock) {
    this.#clock = clock
    this.#deterministic = clock.kind === 'deterministic'
  }

  /** The slice has not ended: its vCPU ran for a part of it, or waited for a page, and continues. */
  get isInterrupted(): boolean {
    return this.#left > 0
  }

  /** Begins or continues a slice, of at most `sliceNs` of guest time. Gives its instructions. */
  budget(sliceNs: number): number {
    const clock = this.#clock
    if (this.#deterministic) {
      this.endNs = clock.nextDeadline()
      this.#left = Math.min(this.#left || DETERMINISTIC_SLICE, Math.max(1, clock.instructionsToDeadline()))
      // Which code is compiled, and from where, depends on when pages came: the last instructions are those of an exact budget.
      return this.#left > EXACT_BUDGET ? this.#left - EXACT_BUDGET : this.#left
    }
    const now = clock.nowNs()
    this.endNs = Math.min(clock.nextDeadline(), now + sliceNs)
    return Math.min(Math.max(Math.floor((this.endNs - now) * this.#rate), LEAST_BUDGET), MOST_BUDGET)
  }

  /** After so many instructions in so much time of the host. Measures the guest's speed, so that slices have the intended length. `continues`: the vCPU has work. */
  ended(instructions: number, ns: number, continues: boolean): void {
    this.#left = this.#deterministic && continues ? Math.max(0, this.#left - instructions) : 0
    // Too short to measure.
    if (ns < TURN_NS / 20) return
    this.#rate += (instructions / ns - this.#rate) / 4
  }

  reset(): void {
    this.#left = 0
  }
}
