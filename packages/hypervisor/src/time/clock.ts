/** What both clocks share: timers, and what the run loop needs beyond the contract. */

import type { Clock, Snapshot, Timer } from '@nonroot/contracts'
import { snapshotData } from '@nonroot/contracts'
import { TimerHeap } from './timer-heap.ts'
import type { HeapTimer } from './timer-heap.ts'

/** One tick per nanosecond: the TSC needs no arithmetic, and guests get an exact conversion. */
export const TSC_HZ = 1_000_000_000

/** Maximum of timers called in one `runExpired`: a guest that re-arms in the past cannot block the loop. */
const MOST_CALLS = 10_000

export abstract class KernelClock implements Clock {
  abstract readonly kind: Clock['kind']
  readonly tscHz = TSC_HZ
  /** Called when a timer was set that expires before all others: the current slice may have to end earlier. */
  onEarlierDeadline: (deadlineNs: number) => void = () => {}
  protected readonly timers = new TimerHeap()
  /** Instructions reported so far. */
  protected instructions = 0

  abstract nowNs(): number
  abstract wallClockMs(): number
  abstract skipToDeadline(): void
  abstract instructionsToDeadline(): number
  /** Stops the clock. */
  abstract pause(): void
  abstract resume(): void
  protected abstract setNow(ns: number): void

  tsc(): bigint {
    return BigInt(this.nowNs())
  }

  setTimer(deadlineNs: number, callback: () => void): Timer {
    const earlier = deadlineNs < this.timers.nextDeadline
    const timer = this.timers.add(deadlineNs, callback)
    if (earlier) this.onEarlierDeadline(deadlineNs)
    return timer
  }

  cancel(timer: Timer): void {
    this.timers.remove(timer as HeapTimer)
  }

  nextDeadline(): number {
    return this.timers.nextDeadline
  }

  runExpired(): number {
    if (this.timers.nextDeadline === Infinity) return 0
    const now = this.nowNs()
    let called = 0
    for (; called < MOST_CALLS; called++) {
      const timer = this.timers.takeExpired(now)
      if (timer === undefined) break
      timer.callback()
    }
    return called
  }

  advanceInstructions(count: number): void {
    this.instructions += count
  }

  save(): Snapshot {
    return { type: 'clock', version: 1, data: { nowNs: this.nowNs(), instructions: this.instructions } }
  }

  /** Timers belong to the parts that set them, which set them again in their own `restore`. */
  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, 'clock', 1)
    this.timers.clear()
    this.instructions = data['instructions'] as number
    this.setNow(data['nowNs'] as number)
  }
}
