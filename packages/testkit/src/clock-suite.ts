/** What every clock must do, wall or deterministic. */

import type { Clock } from '@nonroot/contracts'
import { check, checkSame } from './check.ts'
import type { TestRegistrar } from './check.ts'

/** `pass` lets at least `ns` nanoseconds of guest time go by. */
export function testClock(
  create: () => Clock,
  pass: (clock: Clock, ns: number) => void | Promise<void>,
  it: TestRegistrar,
): void {
  it('clock: goes forward in whole nanoseconds', async () => {
    const clock = create()
    const before = clock.nowNs()
    check(Number.isSafeInteger(before) && before >= 0, `nowNs is ${before}`)
    await pass(clock, 1e6)
    const after = clock.nowNs()
    check(Number.isSafeInteger(after) && after >= before + 1e6, `${before} then ${after}`)
  })

  it('clock: the TSC follows it at tscHz', async () => {
    const clock = create()
    check(clock.tscHz > 0 && clock.tscHz < 2 ** 32 && clock.tscHz % 1e6 === 0, `tscHz is ${clock.tscHz}`)
    const [ns, tsc] = [clock.nowNs(), clock.tsc()]
    await pass(clock, 2e6)
    const ratio = (Number(clock.tsc() - tsc) * 1e9) / clock.tscHz / (clock.nowNs() - ns)
    check(ratio > 0.5 && ratio < 2, `TSC and nowNs differ by a factor of ${ratio}`)
  })

  it('clock: calls timers back by deadline, then by order of setting, and only when due', async () => {
    const clock = create()
    const now = clock.nowNs()
    const called: string[] = []
    clock.setTimer(now + 3e6, () => called.push('c'))
    clock.setTimer(now + 1e6, () => called.push('a'))
    clock.setTimer(now + 1e6, () => called.push('b'))
    clock.setTimer(now + 3.6e12, () => called.push('never'))
    checkSame(clock.nextDeadline(), now + 1e6, 'next deadline')
    await pass(clock, 4e6)
    clock.runExpired()
    checkSame(called, ['a', 'b', 'c'], 'order')
    checkSame(clock.nextDeadline(), now + 3.6e12, 'what is left')
  })

  it('clock: a cancelled timer is not called, and cancelling twice does no harm', async () => {
    const clock = create()
    let called = 0
    const timer = clock.setTimer(clock.nowNs() + 1, () => called++)
    clock.cancel(timer)
    clock.cancel(timer)
    await pass(clock, 1e6)
    clock.runExpired()
    checkSame([called, clock.nextDeadline()], [0, Infinity], 'calls, next deadline')
  })

  it('clock: a timer set by a timer is called in the same round if it is due', async () => {
    const clock = create()
    const called: string[] = []
    clock.setTimer(clock.nowNs(), () => {
      called.push('outer')
      clock.setTimer(0, () => called.push('inner'))
    })
    await pass(clock, 1)
    clock.runExpired()
    checkSame(called, ['outer', 'inner'], 'called')
  })

  it('clock: shows a date', async () => {
    const clock = create()
    const before = clock.wallClockMs()
    check(before > Date.UTC(2020, 0, 1), `wallClockMs is ${before}`)
    await pass(clock, 5e6)
    check(clock.wallClockMs() >= before, `${before} then ${clock.wallClockMs()}`)
  })

  it('clock: goes on from where it was saved, without the timers, whatever it showed before', async () => {
    const clock = create()
    await pass(clock, 7.5e6)
    const saved = structuredClone(clock.save())
    for (const ahead of [0, 1e9]) {
      const other = create()
      await pass(other, 1e6 + ahead)
      other.setTimer(other.nowNs(), () => check(false, 'a timer from before the restore'))
      const was = clock.nowNs()
      other.restore(saved)
      const now = other.nowNs()
      check(now >= 7.5e6 && now <= clock.nowNs() + 1e6, `saved at ${was} at the latest, restored to ${now}`)
      checkSame([other.nextDeadline(), other.runExpired()], [Infinity, 0], 'timers')
      let called = 0
      other.setTimer(now + 2e6, () => called++)
      await pass(other, 2e6)
      checkSame([other.runExpired(), called], [1, 1], 'a timer after the restore')
    }
  })
}
