/** A clock that a test moves by hand. */

import type { Clock, Timer } from '@nonroot/contracts'

export interface TestClock extends Clock {
  /** Move time on and call back what expires, each at its own deadline. */
  advanceNs(ns: number): void
}

/** TSC at 1 GHz: one tick a nanosecond. One instruction a nanosecond, too. */
export function createTestClock(): TestClock {
  let now = 0
  let order = 0
  let timers: (Timer & { callback: () => void; order: number })[] = []
  const clock: TestClock = {
    kind: 'deterministic',
    nowNs: () => now,
    wallClockMs: () => Date.UTC(2024, 0, 1) + Math.floor(now / 1e6),
    tscHz: 1e9,
    tsc: () => BigInt(now),
    setTimer(deadlineNs, callback) {
      const timer = { deadlineNs, callback, order: order++ }
      timers.push(timer)
      timers.sort((left, right) => left.deadlineNs - right.deadlineNs || left.order - right.order)
      return timer
    },
    cancel(timer) {
      timers = timers.filter((other) => other !== timer)
    },
    nextDeadline: () => timers[0]?.deadlineNs ?? Infinity,
    runExpired() {
      let called = 0
      for (; timers[0] && timers[0].deadlineNs <= now; called++) timers.shift()!.callback()
      return called
    },
    advanceInstructions(count) {
      now += count
    },
    skipToDeadline() {
      if (timers[0]) now = Math.max(now, timers[0].deadlineNs)
    },
    instructionsToDeadline: () => Math.max(0, clock.nextDeadline() - now),
    advanceNs(ns) {
      const end = now + ns
      while (timers[0] && timers[0].deadlineNs <= end) {
        now = Math.max(now, timers[0].deadlineNs)
        clock.runExpired()
      }
      now = end
    },
    save: () => ({ type: 'clock', version: 1, data: { now } }),
    restore(snapshot) {
      now = snapshot.data['now'] as number
      timers = []
    },
  }
  return clock
}
