/** Event channels by what the guest finds in its shared page. */

import { describe, expect, it } from 'vitest'
import { createTestLine } from '@nonroot/testkit'
import { bench, hvmBench, PENDING } from './io-xen.test.support.ts'
import { PORTS } from './event-channels.ts'

const SELF = 0x7ff0

describe('an event', () => {
  it('sets its bit, its word in the selector and the upcall, and wakes the vCPU', () => {
    const { events, bit, upcall, woken } = bench()
    const port = events.bindIpi(1) as number
    events.send(port)
    expect([bit(PENDING, port), upcall(1), upcall(0), woken]).toEqual([1, [1, 1n], [0, 0n], [1]])
  })

  it('does no more than its bit while it is masked, and all at unmask', () => {
    const { events, bit, upcall, setMask } = bench()
    const port = events.bindVirtual(0, 0) as number
    setMask(port)
    events.raiseVirtual(0, 0)
    expect([bit(PENDING, port), upcall()]).toEqual([1, [0, 0n]])
    expect(events.unmask(port)).toBeUndefined()
    expect(upcall()).toEqual([1, 1n])
  })

  it('wakes a vCPU that waits for it by its bit alone, masked', () => {
    const { events, woken, setMask } = bench()
    const port = events.bindIpi(1) as number
    setMask(port)
    events.send(port)
    expect(woken).toEqual([1])
  })

  it('is not there on a new port, whatever the guest wrote before', () => {
    const { events, bit, host } = bench()
    host.bytes.fill(0xff)
    const port = events.bindIpi(0) as number
    expect(bit(PENDING, port)).toBe(0)
  })

  it('reaches no port of before a reset', () => {
    const { events, bit } = bench()
    events.bindVirtual(0, 0)
    events.reset()
    const ipi = events.bindIpi(0) as number
    events.raiseVirtual(0, 0)
    expect(bit(PENDING, ipi)).toBe(0)
    expect(events.bindVirtual(0, 0)).toBe(ipi + 1)
  })

  it('that is pending already changes nothing', () => {
    const { events, upcall, take } = bench()
    const port = events.bindIpi(0) as number
    events.send(port)
    take()
    events.send(port)
    expect(upcall()).toEqual([0, 0n])
  })

  it('is lost where nothing listens', () => {
    const { events, woken } = bench()
    const port = events.allocateUnbound(0) as number
    expect(events.send(port)).toBeUndefined()
    events.raiseVirtual(0, 0)
    expect(woken).toEqual([])
  })

  it('reaches the other end of a pair', () => {
    const { events, bit } = bench()
    const one = events.allocateUnbound(SELF) as number
    const other = events.bindInterdomain(SELF, one) as number
    // The guest may have missed what was sent before: the new end begins with an event.
    expect([bit(PENDING, other), bit(PENDING, one)]).toEqual([1, 0])
    events.send(other)
    expect(bit(PENDING, one)).toBe(1)
    events.close(other)
    expect(events.status(one)).toMatchObject({ state: 'unbound' })
  })

  it('uses the 64th word for the last ports', () => {
    const { events, bit, upcall } = bench()
    let port = 0
    while (port < PORTS - 1) port = events.bindIpi(0) as number
    events.send(port)
    expect([port, bit(PENDING, port), upcall()]).toEqual([PORTS - 1, 1, [1, 1n << 63n]])
  })
})

describe('refusals', () => {
  it('XSA-317: no port beyond what the bits can say', () => {
    const { events } = bench()
    for (let port = 1; port < PORTS; port++) expect(events.bindIpi(0)).toBe(port)
    expect([events.bindIpi(0), events.allocateUnbound(0), events.bindVirtual(0, 0)]).toEqual([
      'noSpace',
      'noSpace',
      'noSpace',
    ])
    expect(events.close(17)).toBeUndefined()
    expect(events.allocateUnbound(0)).toBe(17)
  })

  it.each([
    ['port 0', 0],
    ['a port never allocated', 9],
    ['the first port that no bit stands for', PORTS],
    ['a port beyond all', 2 ** 31],
  ])('XSA-342: %s', (_what, port) => {
    const { events } = bench()
    expect([
      events.send(port),
      events.close(port),
      events.unmask(port),
      events.status(port),
      events.bindVcpu(port, 0),
    ]).toEqual(Array(5).fill('badPort'))
    expect(events.isOpen(port)).toBe(false)
  })

  it('XSA-343: what a reset closed is open to nobody, and its events are lost', () => {
    const { events, bit } = bench()
    const heard: string[] = []
    const end = events.bindLocal(events.allocateUnbound(0) as number, () => void heard.push('event'))!
    events.reset()
    expect([events.send(1), events.isOpen(1)]).toEqual(['badPort', false])
    const port = events.bindIpi(0) as number
    end.notify()
    end.close()
    expect([port, bit(PENDING, port), heard, events.status(port)]).toEqual([
      1,
      0,
      [],
      expect.objectContaining({ state: 'ipi' }),
    ])
  })

  it('XSA-496: a virtual interrupt bound twice keeps its first port', () => {
    const { events, bit } = bench()
    const port = events.bindVirtual(1, 0) as number
    expect([
      events.bindVirtual(1, 0),
      events.bindVirtual(2, 0),
      events.bindVirtual(0, 24),
      events.bindVirtual(1, 2),
    ]).toEqual(['exists', 'badVcpu', 'invalid', 'invalid'])
    events.raiseVirtual(1, 0)
    expect(bit(PENDING, port)).toBe(1)
    // Closed, it may be bound anew.
    events.close(port)
    expect(bit(PENDING, port)).toBe(0)
    expect(events.bindVirtual(1, 0)).toBe(port)
  })

  it('a vCPU beyond the last', () => {
    const { events } = bench()
    expect([events.bindIpi(1), events.bindIpi(2), events.bindVirtual(2, 0)]).toEqual([1, 'badVcpu', 'badVcpu'])
  })

  it('a port of another domain, of itself, or in use', () => {
    const { events } = bench()
    const theirs = events.allocateUnbound(0) as number
    expect([
      events.bindInterdomain(0, 1),
      events.bindInterdomain(SELF, theirs),
      events.bindInterdomain(SELF, 99),
    ]).toEqual(['noDomain', 'badPort', 'badPort'])
  })

  it('the vCPU of a timer or an IPI is not changed', () => {
    const { events } = bench()
    const [timer, ipi, pair] = [events.bindVirtual(0, 0), events.bindIpi(0), events.allocateUnbound(0)] as number[]
    expect([
      events.bindVcpu(timer!, 1),
      events.bindVcpu(ipi!, 1),
      events.bindVcpu(pair!, 1),
      events.bindVcpu(pair!, 2),
    ]).toEqual(['invalid', 'invalid', undefined, 'badVcpu'])
    expect(events.status(pair!)).toMatchObject({ vcpu: 1 })
  })
})

describe('an event of a guest with local APICs', () => {
  it('comes as the vector that the vCPU chose, once until the vCPU has looked', () => {
    const { platform, events, vectors, take } = hvmBench()
    platform.setUpcallVector!(1, 0xf3)
    const port = events.bindIpi(1) as number
    events.send(port)
    events.send(events.bindIpi(1) as number)
    expect(vectors).toEqual([[1, 0xf3]])
    take(1)
    events.send(events.bindIpi(1) as number)
    expect(vectors).toHaveLength(2)
  })
  it('waits for the vector', () => {
    const { platform, events, vectors } = hvmBench()
    events.send(events.bindIpi(0) as number)
    expect(vectors).toEqual([])
    platform.setUpcallVector!(0, 0x40)
    expect(vectors).toEqual([[0, 0x40]])
  })
  it('comes by the vector for all, past the local APIC, to a vCPU that chose none', () => {
    const { platform, events, vectors, external, take } = hvmBench(3)
    platform.setUpcallVector!(1, 0xf3)
    for (const vcpu of [0, 1]) events.send(events.bindIpi(vcpu) as number)
    expect(external).toEqual([])
    platform.setCallbackVector!(0xf2)
    expect(external).toEqual([[0, 0xf2]])
    take(0)
    for (const vcpu of [0, 2]) events.send(events.bindIpi(vcpu) as number)
    expect([external, vectors]).toEqual([
      [
        [0, 0xf2],
        [0, 0xf2],
        [2, 0xf2],
      ],
      [[1, 0xf3]],
    ])
    platform.begin()
    events.send(events.bindIpi(0) as number)
    expect(external).toHaveLength(3)
  })
  it('comes by the pin of the platform device, until the interrupt ends with no event left', () => {
    const { platform, events, vectors, external, take } = hvmBench()
    const line = createTestLine()
    const ends: (() => void)[] = []
    const interrupt = {
      raise: line.raise,
      lower: line.lower,
      pulse: line.pulse,
      onEnd: (end: () => void) => void ends.push(end),
    }
    platform.connectDevice!({ requesterId: 0x08, interrupt, line: () => interrupt })
    expect([
      platform.setCallbackPin!(0x10, 0),
      platform.setCallbackPin!(0x08, 1),
      platform.setCallbackPin!(0x08, 0),
    ]).toEqual([...[false, false, true]])
    const [first, other] = [events.bindIpi(0), events.bindIpi(1)] as number[]
    events.send(other!)
    expect(line.raised).toBe(false)
    events.send(first!)
    expect(line.raised).toBe(true)
    // Another event came while the guest handled the first.
    take(0)
    events.send(events.bindIpi(0) as number)
    ends[0]!()
    expect(line.raised).toBe(true)
    take(0)
    ends[0]!()
    expect([line.raised, vectors, external]).toEqual([false, [], []])
    events.send(events.bindIpi(0) as number)
    platform.setCallbackVector!(0xf3)
    expect([line.raised, external]).toEqual([
      false,
      [
        [0, 0xf3],
        [1, 0xf3],
      ],
    ])
    platform.setCallbackPin!(0x08, 0)
    expect(line.raised).toBe(true)
    platform.begin()
    expect(line.raised).toBe(false)
  })
  it('comes by a line of the machine: an edge for each time that the guest is to look', () => {
    const { platform, events, take } = hvmBench()
    const lines: number[] = []
    const line = createTestLine()
    platform.connectDevice!({ requesterId: 0x08, interrupt: createTestLine(), line: (gsi) => (lines.push(gsi), line) })
    expect([0, 16, 1.5e9, 11].map((gsi) => platform.setCallbackLine!(gsi))).toEqual([false, false, false, true])
    for (let n = 0; n < 3; n++) {
      events.send(events.bindIpi(0) as number)
      take(0)
    }
    platform.setCallbackLine!(11)
    expect([line.edges, lines]).toEqual([3, [11]])
  })
  it('comes by no line of a machine without platform device', () => {
    expect([hvmBench().platform.setCallbackLine!(1), hvmBench().platform.setCallbackPin!(8, 0)]).toEqual([false, false])
  })
  it('finds no vector after a reset', () => {
    const { platform, events, vectors } = hvmBench()
    platform.setUpcallVector!(0, 0x40)
    platform.begin()
    events.send(events.bindIpi(0) as number)
    expect(vectors).toEqual([])
  })
  it('has its console and its store on open ports after each boot', () => {
    const { platform, events } = hvmBench()
    platform.begin()
    for (const { port } of [platform.console, platform.store]) expect(events.status(port)).toMatchObject({ state: 'interdomain', remote: 0 })
    expect(platform.console.port).not.toBe(platform.store.port)
  })
  it('has its rings in the last pages below 4 GiB, which memory maps leave out', () => {
    const { platform, model } = hvmBench()
    expect([platform.console.page, platform.store.page]).toEqual([6 * 4096, 7 * 4096])
    expect(model.describe!()).toEqual({ reservedMemory: [{ address: 6 * 4096, length: 8192 }] })
  })
})
