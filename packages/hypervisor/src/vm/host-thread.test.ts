/** A processor of the host against a scheduler that is told whom to choose: what it counts, whom it lets run how long, whom it wakes. */
import type { KickAddress, Schedulable, Scheduler } from '@nonroot/contracts'
import { createTestMetrics } from '@nonroot/testkit'
import { describe, expect, it, vi } from 'vitest'
import { HostThread, TURN_NS, type ScheduledVm } from './host-thread.ts'

type Who = Schedulable & { readonly kickAddress: KickAddress }

function bench() {
  const log: string[] = []
  const queue: { who: Who; sliceNs: number }[] = []
  const named = new Map<Schedulable, string>()
  const scheduler = {
    add: (who: Schedulable) => log.push(`add ${named.get(who)}`),
    remove: (who: Schedulable) => log.push(`remove ${named.get(who)}`),
    wake: (who: Schedulable, reason: string) => log.push(`wake ${named.get(who)} ${reason}`),
    sleep: (who: Schedulable) => log.push(`sleep ${named.get(who)}`),
    next: () => queue.shift(),
    ran: (processor: number, who: Schedulable, ns: number) => log.push(`ran ${processor} ${named.get(who)} ${ns >= 0}`),
  } as unknown as Scheduler
  const turns: (() => void)[] = []
  let slept: number | undefined
  const wait = () => new Promise<void>((resolve) => turns.push(resolve))
  const pace = { turn: wait, sleep: (ns: number) => ((slept = ns), wait()), wake: () => {} }
  const metrics = createTestMetrics()
  const thread = new HostThread(3, scheduler, pace, metrics)
  const vmOf = (name: string, vcpus: number, more: Partial<ScheduledVm> = {}) => {
    const all = Array.from({ length: vcpus }, (_, vcpu) => {
      const who = { vcpu, kickAddress: { buffer: new SharedArrayBuffer(4), offset: 0 } } as unknown as Who
      named.set(who, `${name}${vcpu}`)
      return who
    })
    const vm: ScheduledVm = {
      vcpus: all,
      untilDueNs: Infinity,
      prepare: () => {},
      slice: (vcpu, ns) => log.push(`slice ${name}${vcpu} ${ns}`),
      accountSteal: (vcpu, ns) => log.push(`steal ${name}${vcpu} ${ns >= 0}`),
      ...more,
    }
    return { vm, who: all }
  }
  /** Turns of the event loop, one at least, until all who were chosen have run: a slow host needs more. */
  const turn = async () => {
    do {
      turns.shift()!()
      for (let n = 0; n < 5; n++) await Promise.resolve()
    } while (queue.length > 0)
  }
  const choose = (who: Who, sliceNs = 1000) => queue.push({ who, sliceNs })
  const count = (name: string) => metrics.samples().find((sample) => sample.name === name)!.value
  return { thread, log, vmOf, turn, choose, count, slept: () => slept, drain: () => log.splice(0) }
}

describe('a processor of the host', () => {
  it('runs whom the scheduler chooses, no longer than a turn, and not before its caller goes on', async () => {
    const { thread, vmOf, turn, choose, drain } = bench()
    const { vm, who } = vmOf('a', 2)
    choose(who[0]!)
    choose(who[1]!, TURN_NS + 1)
    thread.add(vm)
    expect(drain()).toEqual(['add a0', 'add a1'])
    await turn()
    expect(drain()).toEqual(['slice a0 1000', 'ran 3 a0 true', `slice a1 ${TURN_NS}`, 'ran 3 a1 true'])
  })

  it('counts changes of the vCPU, and wakes', async () => {
    const { thread, vmOf, turn, choose, count } = bench()
    const { vm, who } = vmOf('a', 2)
    thread.add(vm)
    thread.wake(who[0]!, 'interrupt' as never)
    thread.wake(who[0]!, 'interrupt' as never)
    for (const n of [0, 0, 1, 1, 0]) choose(who[n]!)
    await turn()
    expect([count('switches'), count('wakes')]).toEqual([3, 1])
    expect(count('wakeNs')).toBeGreaterThan(0)
    // One that slept in between is not counted as waiting.
    thread.sleep(who[0]!)
    choose(who[0]!)
    await turn()
    expect(count('wakes')).toBe(1)
  })

  it('ends a slice when another VM is due, and accounts the time to whom was ready', async () => {
    const { thread, vmOf, turn, choose, drain } = bench()
    const a = vmOf('a', 2, { untilDueNs: 10 })
    const b = vmOf('b', 1, { untilDueNs: 400 })
    thread.add(a.vm)
    thread.add(b.vm)
    thread.wake(a.who[1]!, 'interrupt' as never)
    drain()
    // Its own timers end a slice by themselves.
    choose(a.who[0]!)
    choose(b.who[0]!)
    await turn()
    expect(drain()).toEqual(['slice a0 400', 'ran 3 a0 true', 'steal a1 true', 'slice b0 10', 'ran 3 b0 true', 'steal a1 true'])
  })

  it('sleeps until the first VM is due', async () => {
    const { thread, vmOf, turn, slept } = bench()
    thread.add(vmOf('a', 1, { untilDueNs: 5e6 }).vm)
    thread.add(vmOf('b', 1, { untilDueNs: 3e6 }).vm)
    await turn()
    expect(slept()).toBe(3e6)
  })

  it('calls once when another thread kicks a vCPU that sleeps, or its VM is gone', async () => {
    const { thread, vmOf } = bench()
    const { vm, who } = vmOf('a', 2)
    thread.add(vm)
    const kicks: number[] = []
    for (const n of [0, 1]) for (let again = 0; again < 2; again++) thread.sleep(who[n]!, () => kicks.push(n))
    const word = new Int32Array(who[0]!.kickAddress.buffer as SharedArrayBuffer)
    Atomics.store(word, 0, 1)
    Atomics.notify(word, 0)
    await vi.waitFor(() => expect(kicks).toEqual([0]))
    // Kicked already.
    thread.sleep(who[0]!, () => kicks.push(2))
    expect(kicks).toEqual([0, 2])
    thread.remove(vm)
    await vi.waitFor(() => expect(kicks).toEqual([0, 2, 1]))
  })

  it('knows nothing of a VM that was removed, and ends with the last', async () => {
    const { thread, vmOf, turn, drain } = bench()
    const { vm, who } = vmOf('a', 1)
    thread.add(vm)
    thread.remove(vm)
    thread.remove(vm)
    expect(drain()).toEqual(['add a0', 'remove a0'])
    thread.wake(who[0]!, 'interrupt' as never)
    thread.sleep(who[0]!, () => {})
    expect(drain()).toEqual([])
    await turn()
    // It begins anew.
    const next = vmOf('b', 1)
    thread.add(next.vm)
    await turn()
    expect(drain()).toEqual(['add b0'])
  })
})
