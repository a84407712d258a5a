/** Rules of direct paging, by what a hostile guest would try; those that an advisory stands behind carry its number. */

import { FRAME_USE } from '@nonroot/contracts'
import type { TableLevel, TableStatus } from '@nonroot/contracts'
import { createTestHostMemory } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { A, D, G, NX, P, PSE, RW, TestDomain, US } from './testing/domain.ts'

describe('a table begins', () => {
  it('with all below it, each entry counted', () => {
    const domain = new TestDomain().withTables()
    expect([0, 1, 2, 3, 4].map((frame) => domain.use(frame))).toEqual([
      [4, 2, 3],
      [3, 1, 2],
      [2, 1, 2],
      [1, 1, 2],
      [FRAME_USE.writable, 1, 2],
    ])
    expect(domain.faults()).toEqual([])
  })

  it('with every page for CPL 3, and a mark where the guest meant its kernel', () => {
    const domain = new TestDomain()
    domain.poke(0, 0, domain.entry(4, P))
    domain.poke(0, 1, domain.entry(4, P | US))
    expect(domain.pin(1, 0)).toBe('ok')
    expect([domain.peek(0, 0), domain.peek(0, 1)]).toEqual([
      [domain.entry(4, P | US), 1 << 20],
      [domain.entry(4, P | US), 0],
    ])
  })

  it.each<{ what: string; level: TableLevel; low: (d: TestDomain) => number; high?: number; status: TableStatus }>([
    { what: 'XSA-148: PSE in level 2', level: 2, low: (d) => d.entry(8, P | RW | US | PSE), status: 'invalid' },
    { what: 'PSE in level 3', level: 3, low: (d) => d.entry(8, P | RW | US | PSE), status: 'invalid' },
    { what: 'PSE in level 4', level: 4, low: (d) => d.entry(8, P | RW | US | PSE), status: 'invalid' },
    { what: 'PAT in level 1', level: 1, low: (d) => d.entry(8, P | US | PSE), status: 'invalid' },
    { what: 'cache control in level 1', level: 1, low: (d) => d.entry(8, P | US | 0x10), status: 'invalid' },
    { what: 'G in level 2', level: 2, low: (d) => d.entry(8, P | US | G), status: 'invalid' },
    { what: 'G in level 1', level: 1, low: (d) => d.entry(8, P | US | G), status: 'ok' },
    { what: 'NX in level 1', level: 1, low: (d) => d.entry(8, P | US), high: NX, status: 'ok' },
    { what: 'the bit of grants', level: 1, low: (d) => d.entry(8, P | US), high: 1 << 30, status: 'invalid' },
    { what: 'a frame that no machine has', level: 1, low: () => P | US | RW, high: 0xfffff, status: 'invalid' },
    {
      what: "a frame of the hypervisor's",
      level: 1,
      low: (d) => (d.host.zeroFrame & -4096) | P | US,
      status: 'denied',
    },
    { what: 'anything at all that is not present', level: 1, low: () => 0xffff_fffe | 0, high: -1, status: 'ok' },
  ])('$what: $status', ({ level, low, high = 0, status }) => {
    const domain = new TestDomain()
    domain.poke(0, 7, low(domain), high)
    expect(domain.pin(level, 0)).toBe(status)
    expect(domain.faults()).toEqual([])
    if (status !== 'ok') expect(domain.use(0)).toEqual([FRAME_USE.none, 0, 1])
  })

  it('XSA-58: or not at all, every reference given back, wherever the bad entry is', () => {
    for (const bad of [0, 1, 255, 511]) {
      const domain = new TestDomain()
      for (let index = 0; index < 512; index++) domain.poke(0, index, domain.entry(5 + (index % 8)))
      domain.poke(0, bad, domain.entry(5, P | US | 0x10))
      expect(domain.pin(1, 0)).toBe('invalid')
      expect(domain.faults()).toEqual([])
    }
  })

  it('XSA-299: or not at all, when a table three levels down is bad', () => {
    const domain = new TestDomain()
    for (let level = 0; level < 3; level++) domain.poke(level, 0, domain.entry(level + 1))
    domain.poke(3, 511, domain.entry(4, P | 0x10))
    expect(domain.pin(4, 0)).toBe('invalid')
    expect(domain.faults()).toEqual([])
  })

  it('never as two things: a table mapped writable by itself or another', () => {
    const domain = new TestDomain().withTables()
    expect(domain.write(3, 1, domain.entry(3))).toBe('busy')
    expect(domain.write(3, 1, domain.entry(0))).toBe('busy')
    expect(domain.write(3, 1, domain.entry(0, P | US))).toBe('ok')
    expect(domain.pin(1, 4)).toBe('busy')
    expect(domain.refused('use')).toBe(3)
    expect(domain.faults()).toEqual([])
  })

  it('XSA-240: and never recursively', () => {
    const domain = new TestDomain()
    domain.poke(0, 5, domain.entry(0, P | US))
    expect(domain.pin(4, 0)).toBe('busy')
    expect(domain.pin(2, 0)).toBe('busy')
    expect(domain.faults()).toEqual([])
  })
})

describe('an entry changes', () => {
  it.each<[what: string, from: number, to: number, toHigh: number, counted: boolean]>([
    ['accessed and dirty', P | US, P | US | A | D, 0, false],
    ['not executable', P | US, P | US, NX, false],
    ['for user programs', P, P | US, 0, false],
    ['XSA-182: writable', P | US, P | US | RW, 0, true],
    ['read-only', P | US | RW, P | US, 0, true],
  ])('%s', (_what, from, to, toHigh, counted) => {
    const domain = new TestDomain()
    domain.withTables(domain.entry(4, from))
    const before = domain.use(4)
    expect(domain.write(3, 0, domain.entry(4, to), toHigh)).toBe('ok')
    expect(domain.use(4).join() !== before.join()).toBe(counted)
    expect(domain.faults()).toEqual([])
  })

  it('XSA-182: writable by the quick way, and the frame is a table: refused', () => {
    const domain = new TestDomain()
    domain.withTables(domain.entry(0, P | US))
    const before = domain.peek(3, 0)
    expect(domain.write(3, 0, domain.entry(0, P | US | RW))).toBe('busy')
    expect(domain.peek(3, 0)).toEqual(before)
  })

  it('keeps accessed and dirty flags only when asked to', () => {
    const domain = new TestDomain().withTables()
    domain.poke(3, 0, domain.entry(4, P | RW | US | A | D))
    domain.tables.writeEntry(0, domain.at(3, 0), domain.entry(4, P | US), 0, { keepAccessed: true })
    expect(domain.peek(3, 0)[0]).toBe(domain.entry(4, P | US | A | D))
    domain.write(3, 0, domain.entry(4, P | US))
    expect(domain.peek(3, 0)[0]).toBe(domain.entry(4, P | US))
  })

  it.each([
    [255, 'ok'],
    [256, 'denied'],
    [260, 'denied'],
    [271, 'denied'],
    [272, 'ok'],
  ])("of the root at slot %i: %s, for 256 to 271 are the hypervisor's", (slot, status) => {
    const domain = new TestDomain().withTables()
    const before = domain.peek(0, slot)
    expect(domain.write(0, slot, domain.entry(1, P | US | RW))).toBe(status)
    if (status !== 'ok') expect(domain.peek(0, slot)).toEqual(before)
    expect(domain.faults()).toEqual([])
  })

  it("brings nothing of the guest's into the hypervisor's slots when the root begins", () => {
    const domain = new TestDomain()
    for (let slot = 0; slot < 512; slot++) domain.poke(0, slot, domain.entry(9, P | US | 0x10))
    for (const slot of [...Array(256).keys(), ...Array.from({ length: 240 }, (_, n) => n + 272)])
      domain.poke(0, slot, 0)
    expect(domain.pin(4, 0)).toBe('ok')
    const own = Array.from({ length: 16 }, (_, n) => domain.peek(0, 256 + n)[0])
    expect(own.map((low) => low !== 0)).toEqual(own.map((_, n) => n === 4))
    // In use by a kernel, the map as well; by user programs not.
    domain.tables.setRoot(0, 'kernel', domain.machine[0]!)
    expect(domain.peek(0, 256)[0]).not.toBe(0)
    domain.tables.setRoot(0, 'user', domain.machine[0]!)
    expect(domain.peek(0, 256)[0]).toBe(0)
    // Nor does the root keep it that a kernel leaves to its users.
    domain.tables.setRoot(0, 'kernel', domain.machine[1]!)
    domain.tables.setRoot(0, 'kernel', domain.machine[0]!)
    expect(domain.peek(0, 256)[0]).not.toBe(0)
    domain.tables.setRoot(0, 'kernel', domain.machine[1]!)
    expect(domain.peek(0, 256)[0]).toBe(0)
  })

  it('in memory that is no table: written as by the guest, who must be allowed to', () => {
    const domain = new TestDomain().withTables()
    expect(domain.write(20, 3, 0x1234, 0x5678)).toBe('ok')
    expect(domain.peek(20, 3)).toEqual([0x1234, 0x5678])
    domain.poke(21, 0, 0, 0)
    expect(domain.tables.setDescriptorFrames(0, [domain.machine[21]!], 512)).toBe('ok')
    expect(domain.write(21, 0, 0, 0)).toBe('busy')
    expect(domain.faults([domain.machine[21]!])).toEqual([])
  })

  it.each([
    ['unaligned', (d: TestDomain) => d.at(3, 0) + 4],
    ["of the hypervisor's frame", (d: TestDomain) => d.host.zeroFrame as number],
    ['beyond the machine', () => 2 ** 50],
  ])('XSA-227: at an address %s: refused', (_what, at) => {
    const domain = new TestDomain().withTables()
    expect(domain.tables.writeEntry(0, at(domain), domain.entry(4), 0)).toBe('invalid')
  })

  it('by linear address only where a table of the last level maps it', () => {
    const domain = new TestDomain().withTables()
    const write = (address: bigint): TableStatus => domain.tables.writeLinear(0, address, domain.entry(5), 0)
    expect(write(0x1000n)).toBe('ok')
    expect(domain.peek(3, 1)[0]).toBe(domain.entry(5))
    // No table; the hypervisor's part; XSA-279: not canonical.
    expect([write(1n << 21n), write(0xffff_8000_0000_0000n), write(1n << 47n)]).toEqual([
      'invalid',
      'invalid',
      'invalid',
    ])
    expect(domain.faults()).toEqual([])
  })

  it('XSA-286: is seen by the next look-up by linear address', () => {
    const domain = new TestDomain().withTables()
    domain.poke(6, 0, domain.entry(7, P | US))
    expect(domain.write(2, 0, domain.entry(6))).toBe('ok')
    expect(domain.tables.writeLinear(0, 0n, domain.entry(8), 0)).toBe('ok')
    expect(domain.peek(6, 0)[0]).toBe(domain.entry(8))
    expect(domain.peek(3, 0)[0]).toBe(domain.entry(4))
    expect(domain.faults()).toEqual([])
  })
})

describe('translations', () => {
  it('XSA-401: go on every vCPU when a frame that was writable becomes a table', () => {
    const domain = new TestDomain({ vcpuCount: 2 }).withTables()
    domain.write(3, 0, 0)
    const before = [...domain.flushes]
    expect(domain.pin(1, 4)).toBe('ok')
    expect(domain.flushes).toEqual(before.map((count) => count + 1))
    // Never writable: nothing can be left of it.
    expect(domain.pin(1, 10)).toBe('ok')
    expect(domain.flushes).toEqual(before.map((count) => count + 1))
  })

  it('go when an entry above the last level is replaced, and not when one is added', () => {
    const domain = new TestDomain().withTables()
    const [before] = domain.flushes
    domain.write(2, 9, domain.entry(6))
    expect(domain.flushes).toEqual([before])
    domain.write(2, 9, 0)
    expect(domain.flushes).toEqual([before! + 1])
  })

  it('XSA-279: stay when an update fails', () => {
    const domain = new TestDomain().withTables()
    const before = [...domain.flushes]
    expect(domain.write(2, 0, domain.entry(4))).toBe('busy')
    expect(domain.tables.writeLinear(0, 1n << 47n, 0, 0)).toBe('invalid')
    expect(domain.flushes).toEqual(before)
  })

  it('XSA-346: go before a frame that was given back is free', () => {
    const domain = new TestDomain().withTables()
    domain.tables.giveBack(domain.machine[4]!)
    const before = domain.flushes[0]!
    domain.write(3, 0, 0)
    expect([domain.flushes[0], domain.frames.owner[domain.machine[4]!]]).toEqual([before + 1, 0])
  })
})

describe('pins and roots', () => {
  it('are counted: a root in use outlives its pin, and tables below outlive theirs', () => {
    const domain = new TestDomain().withTables()
    expect(domain.unpin(0)).toBe('ok')
    expect(domain.use(3)).toEqual([1, 1, 2])
    expect(domain.write(3, 5, domain.entry(3))).toBe('busy')
    expect(domain.faults()).toEqual([])
  })

  it('XSA-242: unpinned twice, or never pinned: refused, and no count moves', () => {
    const domain = new TestDomain().withTables()
    expect([domain.unpin(0), domain.unpin(0), domain.unpin(3), domain.pin(4, 0), domain.pin(4, 0)]).toEqual([
      'ok',
      'invalid',
      'invalid',
      'ok',
      'invalid',
    ])
    expect(domain.faults()).toEqual([])
  })

  it('end with the last use, and everything below with them', () => {
    const domain = new TestDomain().withTables()
    domain.poke(10, 0, 0)
    expect(domain.pin(4, 10)).toBe('ok')
    domain.unpin(0)
    expect(domain.tables.setRoot(0, 'kernel', domain.machine[10]!)).toBe('ok')
    expect([0, 1, 2, 3].map((frame) => domain.use(frame))).toEqual(Array(4).fill([FRAME_USE.none, 0, 1]))
    expect(domain.use(4).slice(1)).toEqual([0, 1])
    expect(domain.faults()).toEqual([])
  })

  it.each<[TableLevel]>([[1], [2], [3]])('a table of level %i is no root', (level) => {
    const domain = new TestDomain().withTables()
    expect(domain.tables.setRoot(0, 'kernel', domain.machine[4 - level]!)).toBe('busy')
    expect(domain.tables.setRoot(0, 'kernel', 0)).toBe('invalid')
    expect(domain.tables.root(0, 'kernel')).toBe(domain.machine[0])
  })

  it('XSA-494: a new root is taken before the old one is dropped', () => {
    const domain = new TestDomain().withTables()
    expect(domain.tables.setRoot(0, 'user', domain.machine[0]!)).toBe('ok')
    expect(domain.tables.setRoot(0, 'user', domain.machine[0]!)).toBe('ok')
    expect(domain.tables.setRoot(0, 'user', 0)).toBe('ok')
    expect(domain.faults()).toEqual([])
  })
})

describe('memory given back', () => {
  it('XSA-252: keeps a pinned table until it is unpinned', () => {
    const domain = new TestDomain().withTables()
    domain.poke(10, 0, domain.entry(11))
    domain.pin(1, 10)
    expect(domain.tables.giveBack(domain.machine[10]!)).toBe('ok')
    expect(domain.use(10)).toEqual([1, 1, 1])
    expect(domain.faults()).toEqual([])
    expect(domain.unpin(10)).toBe('ok')
    expect(domain.frames.owner[domain.machine[10]!]).toBe(0)
    expect(domain.faults()).toEqual([])
  })

  it('XSA-287: goes once, and is never owned without a reference', () => {
    const domain = new TestDomain().withTables()
    const count = domain.tables.frameCount
    expect([domain.tables.giveBack(domain.machine[20]!), domain.tables.giveBack(domain.machine[20]!)]).toEqual([
      'ok',
      'invalid',
    ])
    expect(domain.tables.giveBack(domain.host.zeroFrame >>> 12)).toBe('invalid')
    expect(domain.tables.frameCount).toBe(count - 1)
    expect(domain.write(3, 2, domain.entry(20))).toBe('denied')
    const fresh = domain.tables.takeFrame()!
    expect(domain.tables.frameCount).toBe(count)
    expect(domain.frames.use[fresh]).toBe(FRAME_USE.none)
    expect(domain.tables.takeFrame()).toBeUndefined()
  })

  it('XSA-214: leaves nothing of its use to who gets it', () => {
    const host = createTestHostMemory(512)
    const [one, other] = [new TestDomain({ host }).withTables(), new TestDomain({ host })]
    one.tables.giveBack(one.machine[30]!)
    one.write(3, 1, one.entry(31))
    expect([one.frames.owner[one.machine[30]!], one.frames.uses[one.machine[30]!]]).toEqual([0, 0])
    // One's frames are nothing of the other's.
    expect(other.write(0, 0, one.entry(31))).toBe('ok')
    other.poke(1, 0, one.entry(31))
    expect(other.pin(1, 1)).toBe('denied')
    expect(other.tables.writeEntry(0, one.at(3, 0), 0, 0)).toBe('invalid')
    expect(other.pin(4, 0)).toBe('denied')
    expect([one.faults(), other.faults()]).toEqual([[], []])
  })

  it('stays while a back end holds it', () => {
    const domain = new TestDomain().withTables()
    expect(domain.hold(12)).toBe('ok')
    domain.tables.giveBack(domain.machine[12]!)
    expect(domain.frames.owner[domain.machine[12]!]).not.toBe(0)
    expect(domain.pin(1, 12)).toBe('busy')
    domain.held.pop()
    domain.tables.release(domain.machine[12]!)
    expect(domain.frames.owner[domain.machine[12]!]).toBe(0)
  })
})

describe('descriptor tables', () => {
  const CODE = 0x00af_9b00
  it.each<[what: string, high: number, becomes: number | undefined]>([
    ['code of level 0', 0x00af_9a00, 0x00af_fb00],
    ['data of level 3', 0x00cf_f300, 0x00cf_f300],
    ['nothing', 0, 0],
    ['a task segment', 0x0000_8900, undefined],
    ['a local table', 0x0000_8200, undefined],
    ['an interrupt gate', 0x0000_ee00, undefined],
    ['a task gate', 0x0000_e500, undefined],
    ['a call gate of level 3', 0x0000_ec00, 0x0000_8c00],
    ['a task segment that is not present', 0x0000_0900, 0x0000_0900],
  ])('take %s', (_what, high, becomes) => {
    const domain = new TestDomain().withTables()
    domain.poke(20, 3, 0xffff, high)
    const status = domain.tables.setDescriptorFrames(0, [domain.machine[20]!], 512)
    expect(status).toBe(becomes === undefined ? 'invalid' : 'ok')
    if (becomes !== undefined) expect(domain.peek(20, 3)[1]).toBe(becomes | 0)
    expect(domain.tables.writeDescriptor(domain.at(20, 4), 0xffff, high)).toBe(becomes === undefined ? 'invalid' : 'ok')
    expect(domain.faults(becomes === undefined ? [] : [domain.machine[20]!])).toEqual([])
  })

  it('XSA-298: end before the hypervisor’s page, and are all or none', () => {
    const domain = new TestDomain().withTables()
    const set = (frames: number[], entries: number): TableStatus =>
      domain.tables.setDescriptorFrames(
        0,
        frames.map((frame) => domain.machine[frame]!),
        entries,
      )
    expect(set([20], 513)).toBe('invalid')
    expect(set(Array(15).fill(20), 14 * 512 + 1)).toBe('invalid')
    expect(set([20, 0], 1024)).toBe('busy')
    expect(domain.faults()).toEqual([])
    expect(set([20, 21], 1024)).toBe('ok')
    expect(set([22], 512)).toBe('ok')
    expect(domain.use(20).slice(1)).toEqual([0, 1])
    expect(domain.faults([domain.machine[22]!])).toEqual([])
  })

  it('are written only where they are, never in page tables', () => {
    const domain = new TestDomain().withTables()
    expect(domain.tables.writeDescriptor(domain.at(3, 0), 0xffff, CODE)).toBe('invalid')
    expect(domain.tables.writeDescriptor(domain.at(20, 0) + 4, 0xffff, CODE)).toBe('invalid')
    expect(domain.tables.writeDescriptor(domain.host.zeroFrame, 0xffff, CODE)).toBe('invalid')
  })
})

describe('stores of the guest kernel', () => {
  it('are to tables of the last level alone', () => {
    const domain = new TestDomain()
    domain.withTables(domain.entry(3, P | US))
    domain.write(3, 1, domain.entry(2, P | US))
    domain.write(3, 2, domain.entry(20, P | US))
    const at = (address: bigint): number | undefined => domain.tables.tableEntryAt(0, address)
    expect(at(0x10n)).toBe(domain.at(3, 2))
    expect([at(0x1010n), at(0x2010n), at(0x20_0000n)]).toEqual([undefined, undefined, undefined])
  })
})

describe('a domain that has ended', () => {
  it('has no table, no descriptors and no reference left', () => {
    const domain = new TestDomain().withTables()
    const { tables, machine } = domain
    domain.pin(4, 20)
    tables.setRoot(0, 'user', machine[20]!)
    tables.setDescriptorFrames(0, [machine[30]!], 8)
    tables.mapGrant(0, { linear: 0x5000n }, machine[8]!, { isWritable: true, isUser: false, available: 0 })
    expect(tables.settle()).toBe(0)
    expect([0, 1, 2, 3, 4, 8, 20, 30].map((frame) => domain.use(frame).slice(1))).toEqual(
      Array.from({ length: 8 }, () => [0, 1]),
    )
    expect(domain.faults()).toEqual([])
  })
  it('shows what was held and never released', () => {
    const { tables, machine } = new TestDomain().withTables()
    tables.hold(machine[9]!)
    tables.hold(machine[10]!, false)
    expect(tables.settle()).toBe(2)
  })
})

describe('whatever is asked', () => {
  /** A generator that gives the same numbers every time. */
  const numbers = (seed: number) => (below: number) => {
    seed = (Math.imul(seed, 1_664_525) + 1_013_904_223) >>> 0
    return Math.floor((seed / 0x1_0000_0000) * below)
  }

  it.each([1, 2, 3, 4])('the counts are right after every call (seed %i)', (seed) => {
    const random = numbers(seed)
    const domain = new TestDomain({ frames: 24, vcpuCount: 2 })
    const { tables, machine } = domain
    const frame = (): number => random(24)
    const flags = [P | RW | US, P | US, P, P | RW, 0, P | RW | US | PSE, P | US | A | D, P | US | 0x10]
    const entry = (): [number, number] => {
      const low = random(20) === 0 ? random(2 ** 32) | 0 : domain.entry(frame(), flags[random(flags.length)]!)
      return [low, random(8) === 0 ? NX : random(40) === 0 ? random(2 ** 32) | 0 : 0]
    }
    const index = (): number => [0, 1, 2, 3, 255, 256, 260, 271, 272, 511][random(10)]!
    let descriptors: number[][] = [[], []]
    const seen: Record<TableStatus, number> = { ok: 0, invalid: 0, busy: 0, denied: 0, noMemory: 0, unsupported: 0 }
    const calls: (() => TableStatus)[] = [
      () => tables.writeEntry(0, domain.at(frame(), index()), ...entry()),
      () => tables.writeEntry(0, domain.at(frame(), index()), ...entry(), { keepAccessed: true }),
      () => tables.writeLinear(random(2), [0n, 0x1000n, 1n << 21n, 1n << 30n, 1n << 39n][random(5)]!, ...entry()),
      () => domain.pin((1 + random(4)) as TableLevel, frame()),
      () => domain.unpin(frame()),
      () => tables.setRoot(random(2), random(2) ? 'kernel' : 'user', random(6) ? machine[frame()]! : 0),
      () => tables.clearFrame(machine[frame()]!),
      () => tables.copyFrame(machine[frame()]!, machine[frame()]!),
      () => domain.hold(frame()),
      () => {
        if (domain.held.length) tables.release(domain.held.splice(random(domain.held.length), 1)[0]!)
        return 'ok'
      },
      () => {
        const [vcpu, frames] = [random(2), Array.from({ length: random(3) }, () => machine[frame()]!)]
        const status = tables.setDescriptorFrames(vcpu, frames, frames.length * 512)
        if (status === 'ok') descriptors = descriptors.map((old, n) => (n === vcpu ? frames : old))
        return status
      },
      () =>
        tables.writeDescriptor(domain.at(frame(), index()), 0xffff, [0x00cf_9300, 0x00af_9b00, 0, 0x8900][random(4)]!),
    ]
    for (let n = 0; n < 1500; n++) {
      seen[calls[random(calls.length)]!()]++
      const faults = domain.faults(descriptors.flat())
      if (faults.length) expect(`after call ${n}: ${faults[0]}`).toBe('')
    }
    // The calls were worth judging: many went well, many did not.
    expect(seen.ok).toBeGreaterThan(200)
    expect(seen.invalid + seen.busy).toBeGreaterThan(200)
  })
})
