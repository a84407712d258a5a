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
