/** Round-trip time and the retransmission time-out. (RFC 6298) @hot */

import { FIRST_RTO, LEAST_RTO, MOST_RTO } from './facts.ts'
import { isBefore } from './sequence.ts'

const GRANULARITY = 1e6

export class RoundTrip {
  /** Nanoseconds, backed off. */
  rto = FIRST_RTO
  #smoothed = 0
  #variation = 0
  /** The segment that is timed ends there; sent then. */
  #timing = false
  #end = 0
  #sentAt = 0

  /** New data went out up to `end`. */
  sent(end: number, now: number): void {
    if (this.#timing) return
    this.#timing = true
    this.#end = end
    this.#sentAt = now
  }

  /** Something was retransmitted: an acknowledgement would not tell of which. (Karn's algorithm) */
  retransmitted(): void {
    this.#timing = false
  }

  acknowledged(sequence: number, now: number): void {
    if (!this.#timing || isBefore(sequence, this.#end)) return
    this.#timing = false
    this.#measured(now - this.#sentAt)
  }

  #measured(time: number): void {
    if (this.#smoothed === 0) {
      this.#smoothed = Math.max(time, 1)
      this.#variation = time / 2
    } else {
      this.#variation += (Math.abs(this.#smoothed - time) - this.#variation) / 4
      this.#smoothed += (time - this.#smoothed) / 8
    }
    const rto = this.#smoothed + Math.max(GRANULARITY, 4 * this.#variation)
    this.rto = Math.min(MOST_RTO, Math.max(LEAST_RTO, rto))
  }

  backOff(): void {
    this.rto = Math.min(MOST_RTO, this.rto * 2)
  }

  get smoothed(): number {
    return this.#smoothed
  }
}
