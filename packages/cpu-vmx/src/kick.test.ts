import { once } from 'node:events'
import { Worker } from 'node:worker_threads'
import { createKickAddress, KickInbox, VcpuKick } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { KICKED_GUESTS, kickedGuest } from './testing/kicked-guests.ts'
import type { KickOrder } from './testing/kick-thread.ts'

const BUDGET = 2_000_000_000

describe('a kick by another thread', () => {
  it.each(KICKED_GUESTS)('ends the run inside $name', { timeout: 30_000 }, async (guest) => {
    const vcpu = kickedGuest(guest)
    const order: KickOrder = { address: vcpu.kickAddress, tries: 30, betweenMs: 0 }
    const thread = new Worker(new URL('./testing/kick-thread.ts', import.meta.url), {
      workerData: order,
      execArgv: ['--conditions=@nonroot/source'],
    })
    const done = once(thread, 'message')
    await once(thread, 'online')
    for (let n = 0; n < order.tries; n++) {
      const before = vcpu.instructionsRetired
      expect(vcpu.run(BUDGET)).toEqual({ reason: 'budget' })
      expect(vcpu.instructionsRetired - before).toBeLessThan(BUDGET)
    }
    const [milliseconds] = (await done) as [number[]]
    expect(milliseconds.every((ms) => ms < Infinity)).toBe(true)
    await thread.terminate()
  })
})

describe('a kick', () => {
  it('ends one run, and the next goes on', () => {
    const vcpu = kickedGuest(KICKED_GUESTS[0]!)
    new VcpuKick(vcpu.kickAddress).post()
    expect(vcpu.run(100_000)).toEqual({ reason: 'budget' })
    expect(vcpu.instructionsRetired).toBe(0)
    vcpu.run(100_000)
    expect(vcpu.instructionsRetired).toBe(100_000)
  })

  it.each([
    ['while the vCPU is outside', [], true],
    ['once it has entered, unaware or not', ['post', 'enter'], false],
    ['while it is inside', ['enter'], false],
    ['once it has left', ['enter', 'post', 'leave'], true],
    ['once it has left and come back', ['enter', 'post', 'leave', 'enter'], true],
  ] as const)('is answered or not: %s', (_, steps, answered) => {
    const address = createKickAddress()
    const kick = new VcpuKick(address)
    const inbox = new KickInbox(address)
    let ticket: number | undefined
    for (const step of steps) {
      if (step === 'post') ticket = kick.post()
      else inbox[step]()
    }
    ticket ??= kick.post()
    expect(kick.isAnswered(ticket)).toBe(answered)
    expect(kick.wait(ticket, 0)).toBe(answered)
    expect([inbox.take(), inbox.take()]).toEqual([true, false])
  })
})
