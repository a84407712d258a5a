import { createRandom, testClock } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { DeterministicClock } from './deterministic-clock.ts'
import { TimerHeap } from './timer-heap.ts'
import { WallClock } from './wall-clock.ts'

describe('timers', () => {
  it('expire by deadline, then by order of setting, cancelled ones not at all', () => {
    const heap = new TimerHeap()
    const expected: [number, number][] = []
    let seed = 1
    const random = (): number => (seed = (Math.imul(seed, 1103515245) + 12345) >>> 0) >>> 16
    const timers = Array.from({ length: 2000 }, (_, index) => {
      const deadline = random() % 300
      expected.push([deadline, index])
      return heap.add(deadline, () => {})
    })
    const gone = new Set(timers.filter(() => random() % 3 === 0))
    for (const timer of gone) heap.remove(timer)
    for (const timer of gone) heap.remove(timer)
    const taken: [number, number][] = []
    for (let timer = heap.takeExpired(Infinity); timer; timer = heap.takeExpired(Infinity))
      taken.push([timer.deadlineNs, timer.order])
    expect(taken).toEqual(
      expected
        .filter(([, index]) => !gone.has(timers[index]!))
        .sort(([left, first], [right, second]) => left - right || first - second),
    )
    expect(heap.nextDeadline).toBe(Infinity)
  })
})

describe('deterministic clock', () => {
  it('moves with reported instructions', () => {
    const clock = new DeterministicClock(0.5)
    const calls: string[] = []
    clock.setTimer(100, () => calls.push('a'))
    clock.setTimer(50, () => {
      calls.push('b')
      clock.setTimer(60, () => calls.push('c'))
    })
    expect(clock.instructionsToDeadline()).toBe(100)
    clock.advanceInstructions(140)
    expect(clock.nowNs()).toBe(70)
    expect(clock.runExpired()).toBe(2)
    clock.skipToDeadline()
    expect(clock.nowNs()).toBe(100)
    clock.runExpired()
    expect(calls).toEqual(['b', 'c', 'a'])
    expect(clock.nextDeadline()).toBe(Infinity)
    expect(clock.tsc()).toBe(100n)
  })

  it('moves in the middle of a slice when it can see the instructions', () => {
    const clock = new DeterministicClock()
    let live = 1000
    clock.setSource(() => live)
    expect(clock.nowNs()).toBe(0)
    live += 30
    expect(clock.nowNs()).toBe(30)
    clock.advanceInstructions(30)
    expect(clock.nowNs()).toBe(30)
    const other = new DeterministicClock()
    other.restore(clock.save())
    expect(other.nowNs()).toBe(30)
  })
})

describe('deterministic clock, conformance', () => {
  testClock(() => new DeterministicClock(), (clock, ns) => clock.advanceInstructions(ns), it)

  it.each([1, 0.3, 2.5])('restored, shows the same after every count of instructions as if it had gone on: %d ns each', (rate) => {
    for (let round = 1; round <= 20; round++) {
      const random = createRandom(round)
      const [one, other] = [new DeterministicClock(rate), new DeterministicClock(rate)]
      const step = (clock: DeterministicClock, count: number, sets: number): unknown[] => {
        clock.advanceInstructions(count)
        if (sets) clock.setTimer(clock.nowNs() + sets, () => {})
        const deadline = clock.nextDeadline()
        if (count % 7 === 0) clock.skipToDeadline()
        return [clock.nowNs(), clock.wallClockMs(), clock.instructionsToDeadline(), deadline, clock.runExpired()]
      }
      for (let n = 0; n < 30; n++) step(one, random(1000), random(3) ? 0 : random(5000))
      for (let n = 0; n < 5; n++) step(other, random(1000), random(100))
      // Timers are set again by the parts that had them.
      one.advanceInstructions(100_000)
      one.runExpired()
      other.restore(structuredClone(one.save()))
      for (let n = 0; n < 100; n++) {
        const [count, sets] = [random(1000), random(3) ? 0 : random(5000)]
        expect(step(other, count, sets)).toEqual(step(one, count, sets))
      }
    }
  })
})

describe('wall clock, conformance', () => {
  let ms = 1e6
  testClock(() => new WallClock(() => ms), (_, ns) => void (ms += ns / 1e6), it)
})

describe('wall clock', () => {
  it('stands still while paused and never goes back', () => {
    let ms = 5
    const clock = new WallClock(() => ms)
    ms += 2
    expect(clock.nowNs()).toBe(2_000_000)
    clock.pause()
    ms += 10
    expect(clock.nowNs()).toBe(2_000_000)
    clock.resume()
    ms += 1
    expect(clock.nowNs()).toBe(3_000_000)
    let called = 0
    clock.cancel(clock.setTimer(1, () => called++))
    clock.setTimer(2, () => called++)
    expect(clock.runExpired()).toBe(1)
    expect(called).toBe(1)
  })

  it('tells of a deadline before all others', () => {
    const clock = new WallClock(() => 0)
    const told: number[] = []
    clock.onEarlierDeadline = (deadline) => told.push(deadline)
    for (const deadline of [100, 200, 50]) clock.setTimer(deadline, () => {})
    expect(told).toEqual([100, 50])
  })

  it('does not let a timer that re-arms in the past keep the loop', () => {
    const clock = new WallClock(() => 1)
    const again = (): void => void clock.setTimer(0, again)
    again()
    expect(clock.runExpired()).toBe(10_000)
  })
})
