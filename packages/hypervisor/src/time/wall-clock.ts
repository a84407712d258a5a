/** Guest time that follows real time: monotonic, rate 1, stopped while paused. @hot */

import { KernelClock } from './clock.ts'

/** Monotonic milliseconds, with a fraction. */
type Monotonic = () => number

export class WallClock extends KernelClock {
  readonly kind = 'wall'
  readonly #monotonic: Monotonic
  /** Monotonic milliseconds at guest time 0. */
  #zero: number
  /** Guest nanoseconds while paused. */
  #paused: number | undefined

  constructor(monotonic: Monotonic = () => performance.now()) {
    super()
    this.#monotonic = monotonic
    this.#zero = monotonic()
  }

  nowNs(): number {
    return this.#paused ?? Math.floor((this.#monotonic() - this.#zero) * 1e6)
  }

  wallClockMs(): number {
    return Date.now()
  }

  pause(): void {
    this.#paused ??= this.nowNs()
  }

  resume(): void {
    if (this.#paused === undefined) return
    this.setNow(this.#paused)
    this.#paused = undefined
  }

  protected override setNow(ns: number): void {
    if (this.#paused !== undefined) this.#paused = ns
    this.#zero = this.#monotonic() - ns / 1e6
  }

  /** Nothing to do: the run loop sleeps. */
  skipToDeadline(): void {}

  instructionsToDeadline(): number {
    return Infinity
  }
}
