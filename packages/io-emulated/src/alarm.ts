/** One deadline on the guest's clock that is set again and again. Independent of devices. @hot */

import type { Clock, Timer } from '@nonroot/contracts'

/** No deadline. A number that a snapshot can hold in any format. */
export const NEVER = -1

/** Periods shorter than this are counted but not all delivered: a guest that asks for one interrupt a nanosecond gets time to run, too. */
export const SHORTEST_PERIOD_NS = 50_000 // of hosts' usual limits (20 to 200 µs), the order of a short interrupt handler here

export class Alarm {
  /** `NEVER`, or when it goes off. */
  deadlineNs = NEVER
  readonly #clock: Clock
  readonly #expired: () => void
  #timer: Timer | undefined

  constructor(clock: Clock, action: () => void) {
    this.#clock = clock
    this.#expired = () => {
      this.#timer = undefined
      this.deadlineNs = NEVER
      action()
    }
  }

  /** `NEVER` clears. */
  set(deadlineNs: number): void {
    if (this.#timer) this.#clock.cancel(this.#timer)
    this.deadlineNs = deadlineNs
    this.#timer = deadlineNs === NEVER ? undefined : this.#clock.setTimer(deadlineNs, this.#expired)
  }
}

/** The first end of a period after `now`, counted from `previous`, skipping periods that no one could have observed. */
export function nextPeriod(previous: number, periodNs: number, now: number): number {
  const next = previous + periodNs
  const earliest = now + SHORTEST_PERIOD_NS
  if (next > now && periodNs >= SHORTEST_PERIOD_NS) return next
  if (next >= earliest) return next
  return previous + Math.max(1, Math.ceil((earliest - previous) / periodNs)) * periodNs
}
