/** The congestion window: how much may be in flight. (RFC 5681; growth by bytes acknowledged, as a peer answers whole batches) @hot */

import { FIRST_SEGMENTS, MOST_CONGESTION_WINDOW } from './facts.ts'

export class Congestion {
  window = 0
  threshold = MOST_CONGESTION_WINDOW
  #mss = 0
  /** Bytes acknowledged since the window last grew, in congestion avoidance. */
  #counted = 0

  start(mss: number): void {
    this.#mss = mss
    this.window = FIRST_SEGMENTS * mss
  }

  /** New data was acknowledged outside of loss recovery. `flight`: what was under way before: an unused window does not grow. */
  acknowledged(bytes: number, flight: number): void {
    if (flight + this.#mss < this.window / 2) return
    if (this.window < this.threshold) this.window += bytes
    else {
      this.#counted += bytes
      if (this.#counted >= this.window) {
        this.#counted -= this.window
        this.window += this.#mss
      }
    }
    this.window = Math.min(this.window, MOST_CONGESTION_WINDOW)
  }

  /** Loss was detected by acknowledgements, with so much under way. */
  lost(flight: number): void {
    this.threshold = Math.max(flight / 2, 2 * this.#mss)
    this.window = this.threshold
  }

  /** Loss was detected by silence. "cwnd MUST be set to no more than the loss window, LW, which equals 1 full-sized segment" */
  timedOut(flight: number, first: boolean): void {
    if (first) this.threshold = Math.max(flight / 2, 2 * this.#mss)
    this.window = this.#mss
    this.#counted = 0
  }
}
