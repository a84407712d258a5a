import type { Schedulable, Scheduler } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { Credit } from './credit.ts'
import { RoundRobin } from './round-robin.ts'

const MS = 1e6

interface Worker {
  readonly weight?: number
  readonly cap?: number
  readonly affinity?: ReadonlySet<number>
  /** Runs for the first and sleeps for the second, in ms; without, it never sleeps. */
  readonly cycle?: readonly [busy: number, asleep: number]
}

/** Shares of one processor's time over a second, and the longest wait of each after waking, in ms. */
function simulate(scheduler: Scheduler, workers: readonly Worker[], processor = 0) {
  const all = workers.map(({ cycle: _, ...claim }, vcpu): Schedulable => ({
    vm: `vm${vcpu}`,
    vcpu,
    weight: 1,
    ...claim,
  }))
  const used = workers.map(() => 0)
  const left = workers.map(({ cycle }) => (cycle ? cycle[0] * MS : Infinity))
  const wakeAt = workers.map(() => 0)
  const longestWait = workers.map(() => 0)
  const isAwake = workers.map(() => false)
  for (const who of all) scheduler.add(who)
  let now = 0
  while (now < 1000 * MS) {
    for (const who of all)
      if (!isAwake[who.vcpu] && wakeAt[who.vcpu]! <= now) {
        isAwake[who.vcpu] = true
        scheduler.wake(who, now === 0 ? 'start' : 'interrupt', now)
      }
    const slice = scheduler.next(processor, now)
    if (!slice) {
      const next = Math.min(scheduler.retryAtNs?.(processor) ?? Infinity, ...wakeAt.filter((at) => at > now))
      if (next === Infinity) break
      now = next
      continue
    }
    const { vcpu } = slice.who
    if (wakeAt[vcpu]! > 0) longestWait[vcpu] = Math.max(longestWait[vcpu]!, (now - wakeAt[vcpu]!) / MS)
    wakeAt[vcpu] = 0
    const took = Math.min(slice.sliceNs, left[vcpu]!)
    now += took
    used[vcpu]! += took
    scheduler.ran(processor, slice.who, took, now)
    left[vcpu]! -= took
    if (left[vcpu]! > 0) continue
    const [busy, asleep] = workers[vcpu]!.cycle!
    left[vcpu] = busy * MS
    wakeAt[vcpu] = now + asleep * MS
    isAwake[vcpu] = false
    scheduler.sleep(slice.who, now)
  }
  return { shares: used.map((ns) => ns / now), longestWait }
}

describe('schedulers', () => {
  it.each<[string, () => Scheduler, Worker[], number[]]>([
    ['round robin: equal shares', () => new RoundRobin(), [{}, {}, {}], [1 / 3, 1 / 3, 1 / 3]],
    ['round robin: whoever sleeps leaves its time', () => new RoundRobin(), [{}, { cycle: [1, 3] }], [0.75, 0.25]],
    ['round robin: affinity', () => new RoundRobin(), [{}, { affinity: new Set([1]) }], [1, 0]],
    ['credit: equal shares', () => new Credit(), [{}, {}], [0.5, 0.5]],
    ['credit: weights', () => new Credit(), [{ weight: 1 }, { weight: 3 }], [0.25, 0.75]],
    [
      'credit: what one does not use goes to the others',
      () => new Credit(),
      [{ weight: 8, cycle: [1, 9] }, {}],
      [0.1, 0.9],
    ],
    ['credit: a cap, though nobody else runs', () => new Credit(), [{ cap: 0.25 }], [0.25]],
    ['credit: a cap against a weight', () => new Credit(), [{ cap: 0.2, weight: 9 }, {}], [0.2, 0.8]],
    ['credit: affinity', () => new Credit(), [{}, { affinity: new Set([1]), weight: 9 }], [1, 0]],
  ])('%s', (_, create, workers, expected) => {
    const { shares } = simulate(create(), workers)
    for (const [n, share] of shares.entries()) expect(Math.abs(share - expected[n]!)).toBeLessThan(0.03)
  })

  it('credit: who wakes goes before those that run all the time, within a slice', () => {
    const busy = [{}, {}, {}, {}]
    expect(simulate(new Credit(), [...busy, { cycle: [0.2, 17.3] }]).longestWait[4]).toBeLessThanOrEqual(1)
    expect(simulate(new RoundRobin(), [...busy, { cycle: [0.2, 17.3] }]).longestWait[4]).toBeGreaterThan(1)
  })

  it.each<() => Scheduler>([() => new RoundRobin(), () => new Credit()])(
    'one that is removed runs no more',
    (create) => {
      const scheduler = create()
      const [first, second] = [0, 1].map((vcpu): Schedulable => ({ vm: 'a', vcpu, weight: 1 })) as [
        Schedulable,
        Schedulable,
      ]
      for (const who of [first, second]) {
        scheduler.add(who)
        scheduler.wake(who, 'start', 0)
      }
      scheduler.remove(first)
      expect([scheduler.next(0, 0)!.who, scheduler.next(0, 0)!.who]).toEqual([second, second])
      scheduler.remove(second)
      expect(scheduler.next(0, 0)).toBeUndefined()
      scheduler.wake(second, 'interrupt', 0)
      expect(scheduler.next(0, 0)).toBeUndefined()
    },
  )
})
