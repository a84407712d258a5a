/** How many instructions a slice has: until the next deadline, at the guest's measured speed. @hot */

import type { KernelClock } from '../time/clock.ts'
import { TURN_NS } from './host-thread.ts'

/** Slices of a deterministic clock do not depend on the host's speed. */
const DETERMINISTIC_SLICE = 100_000
const LEAST_BUDGET = 1000
const MOST_BUDGET = 50_000_000
/** Assumed instructions per nanosecond before the first measurement. */
const FIRST_RATE = 0.05

export class SliceLength {
  readonly #clock: KernelClock
  readonly #deterministic: boolean
  #rate = FIRST_RATE
  #given = 0
  /** Of a deterministic machine: the instructions that its slice has left while it waits for a page. When that page comes must not change whose turn it is. */
  #left = 0
  /** Guest time at which the slice ends. */
  endNs = 0

  constructor(clock: KernelClock) {
    this.#clock = clock
    this.#deterministic = clock.kind === 'deterministic'
  }

  /** The slice has not ended: its vCPU waited for a page, and continues. */
  get isInterrupted(): boolean {
    return this.#left > 0
  }

  /** Begins or continues a slice, of at most `sliceNs` of guest time. Gives its instructions. */
  budget(sliceNs: number): number {
    const clock = this.#clock
    if (this.#deterministic) {
      this.endNs = clock.nextDeadline()
      return (this.#given = this.#left || Math.min(DETERMINISTIC_SLICE, Math.max(1, clock.instructionsToDeadline())))
    }
    const now = clock.nowNs()
    this.endNs = Math.min(clock.nextDeadline(), now + sliceNs)
    return Math.min(Math.max(Math.floor((this.endNs - now) * this.#rate), LEAST_BUDGET), MOST_BUDGET)
  }

  /** After so many instructions in so much time of the host. Measures the guest's speed, so that slices have the intended length. */
  ended(instructions: number, ns: number, waitsForPage: boolean): void {
    this.#left = this.#deterministic && waitsForPage ? Math.max(0, this.#given - instructions) : 0
    // Too short to measure.
    if (ns < TURN_NS / 20) return
    this.#rate += (instructions / ns - this.#rate) / 4
  }

  reset(): void {
    this.#left = 0
  }
}
