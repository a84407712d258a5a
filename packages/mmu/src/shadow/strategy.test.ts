/** Shadow paging by what it costs and counts: which tables it makes, gives back and keeps; what a guest sees is the conformance suite's. */
import { gpa } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory, createTestMetrics, Entry, GuestTables, TestVcpu, type TableFormat } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { createShadowPaging, type ShadowPagingOptions } from './strategy.ts'

const MIB = 0x10_0000
/** The guest's tables are allocated from here, and seen by the guest at WINDOW. */
const TABLES = MIB
const TABLE_BYTES = 0x4_0000
const WINDOW = 0x3000_0000n
const PAGE = 0x40_0000n

function bench(format: TableFormat | 'none', options: ShadowPagingOptions = {}, hostFrames = 1024) {
  const host = createTestHostMemory(hostFrames)
  const guest = createTestGuestMemory({ hostMemory: host, ram: 2 * MIB })
  const metrics = createTestMetrics()
  const strategy = createShadowPaging(options, { hostMemory: host, guestMemory: guest, guestFrames: guest, metrics })
  let next = TABLES
  const tables = new GuestTables(guest, format === 'none' ? 'legacy32' : format, () => (next += 4096) - 4096)
  for (let at = 0; at < TABLE_BYTES; at += 4096) tables.map(WINDOW + BigInt(at), TABLES + at, Entry.write)
  const vcpu = new TestVcpu(strategy, host, guest)
  const enable = (on = vcpu) => on.setMode({ format: tables.format, root: BigInt(tables.root), wp: true, nxe: tables.bytes === 8, pse: true })
  if (format !== 'none') enable()
  const store = (address: number, entry: bigint) => vcpu.writeEntry(WINDOW + BigInt(address - TABLES), entry, tables.bytes)
  const count = (name: string) => metrics.samples().find((sample) => sample.name === name)!.value
  /** What the counters went up by. */
  const counted = (names: readonly string[], act: () => unknown) => {
    const old = names.map(count)
    act()
    return names.map((name, n) => count(name) - old[n]!)
  }
  return { host, guest, strategy, tables, vcpu, enable, store, count, counted }
}
const FORMATS = [{ format: 'legacy32' }, { format: 'pae' }, { format: 'fourLevel' }] as const

describe.each(FORMATS)('shadow paging of $format', ({ format }) => {
  it('counts what the guest does not see, and what is its own', () => {
    const { tables, vcpu, counted } = bench(format)
    tables.map(PAGE, 0x5000, 0n)
    expect(counted(['hiddenFaults', 'guestFaults', 'fills'], () => vcpu.read(PAGE))).toEqual([1, 0, 1])
    expect(counted(['hiddenFaults', 'guestFaults', 'fills'], () => vcpu.read(PAGE + 4n))).toEqual([0, 0, 0])
    expect(counted(['hiddenFaults', 'guestFaults', 'fills'], () => vcpu.write(PAGE, 1))).toEqual([0, 1, 0])
    expect(counted(['rootWrites'], () => vcpu.setRoot(BigInt(tables.root)))).toEqual([1])
    expect(counted(['invalidations'], () => vcpu.invalidate(PAGE))).toEqual([1])
  })

  it('lets the guest write a leaf table, and brings it up to date at the next flush', () => {
    const { tables, vcpu, store, counted } = bench(format)
    const entry = tables.map(PAGE, 0x5000, Entry.write)
    vcpu.read(PAGE)
    const names = ['unsyncs', 'resyncs', 'emulatedWrites', 'tablesDropped']
    expect(counted(names, () => store(entry, 0n))).toEqual([1, 0, 0, 0])
    expect(counted(names, () => store(entry + tables.bytes, 0x6000n | 3n))).toEqual([0, 0, 0, 0])
    // The tables of PAE are linked again as well.
    expect(counted(names, () => vcpu.setRoot(BigInt(tables.root)))).toEqual([0, format === 'pae' ? 2 : 1, 0, 0])
    expect(vcpu.read(PAGE).kind).toBe('fault')
    // Watched again: the next write is noticed.
    vcpu.read(PAGE + 0x1000n)
    expect(counted(names, () => store(entry, 0x5003n))).toEqual([1, 0, 0, 0])
    // One address only.
    expect(counted(names, () => vcpu.invalidate(PAGE))).toEqual([0, 0, 0, 0])
  })

  it('has no more tables than it may, and gives all back', () => {
    const most = 12
    const { tables, vcpu, count, strategy, host } = bench(format, { maxTables: most })
    for (let n = 0n; n < 24n; n++) tables.map(PAGE * (n + 1n), 0x5000, Entry.write)
    for (let round = 0; round < 2; round++)
      for (let n = 0n; n < 24n; n++) {
        expect(vcpu.read(PAGE * (n + 1n)).kind).toBe('memory')
        expect(count('tableFrames')).toBeLessThanOrEqual(most)
      }
    expect(count('tablesMade') - count('tablesDropped')).toBe(count('tableFrames'))
    const free = host.freeFrames
    const held = count('tableFrames')
    strategy.dispose()
    expect(host.freeFrames - free).toBe(held)
  })

  it('forgets all tables over a restore, and fills them anew', () => {
    const { tables, vcpu, strategy, count } = bench(format)
    tables.map(PAGE, 0x5000, Entry.write)
    const root = count('tableFrames')
    vcpu.read(PAGE)
    expect(count('tableFrames')).toBeGreaterThan(root)
    strategy.restore!(strategy.save!())
    expect(count('tableFrames')).toBe(root)
    expect(vcpu.read(PAGE).kind).toBe('memory')
    expect(() => strategy.restore!({ type: 'paging.ept', version: 1, data: {} })).toThrow()
  })

  it('knows of an access once, until there is another', () => {
    const { tables, vcpu, strategy } = bench(format)
    tables.map(PAGE, 0x5000, Entry.write)
    tables.map(PAGE + 0x1000n, 0x5000, Entry.write)
    expect(strategy.takeAccessed!(gpa(0x5000))).toBeUndefined()
    for (const linear of [PAGE, PAGE + 0x1000n]) {
      vcpu.read(linear)
      const flushes = vcpu.counts.flush
      expect([strategy.takeAccessed!(gpa(0x5000)), vcpu.counts.flush]).toEqual([true, flushes + 1])
      expect([strategy.takeAccessed!(gpa(0x5000)), vcpu.counts.flush]).toEqual([false, flushes + 1])
    }
    vcpu.read(PAGE)
    expect(strategy.takeAccessed!(gpa(0x5000))).toBe(true)
    expect(strategy.takeAccessed!(gpa(2 * MIB))).toBeUndefined()
  })

  it('emulates writes to upper tables, until they are too many for one', () => {
    const { tables, vcpu, store, counted } = bench(format)
    tables.map(PAGE, 0x5000, Entry.write)
    vcpu.read(PAGE)
    // An entry of the table above the leaves that is not in use.
    const unused = tables.entry(PAGE + (format === 'legacy32' ? 8n : 4n) * PAGE, 2)
    if (format === 'pae') {
      // Its tables hang on the PDPTE registers.
      expect(counted(['emulatedWrites', 'tablesDropped'], () => store(unused, 0n))).toEqual([2, 0])
      return
    }
    const halves = tables.bytes / 4
    expect(counted(['emulatedWrites'], () => store(unused, 0n))).toEqual([halves])
    expect(vcpu.read(PAGE).kind).toBe('memory')
  })
})

describe('the hardware under shadow paging', () => {
  it.each([
    { format: 'legacy32', keep: true },
    { format: 'pae', keep: false },
    { format: 'fourLevel', keep: true },
  ] as const)('keeps what it cached when CR3 is written again, unless PDPTEs come with it: $format', ({ format, keep }) => {
    const { tables, vcpu } = bench(format)
    const calls: unknown[][] = []
    vcpu.setHardwareRoot = (...args) => (calls.push(args), TestVcpu.prototype.setHardwareRoot.apply(vcpu, args))
    vcpu.setRoot(BigInt(tables.root))
    expect(calls.map(([, named, kept]) => [named, kept])).toContainEqual([format, keep])
  })

  it('loses one address by INVLPG where no other is reached through its entry', () => {
    const { tables, vcpu, guest, store } = bench('fourLevel')
    guest.writeU32(0x6000, 6)
    const entry = tables.map(PAGE, 0x5000, Entry.write)
    vcpu.read(PAGE)
    store(entry, 0x6003n)
    const flushes = vcpu.counts.flush
    vcpu.invalidate(PAGE)
    expect(vcpu.counts.flush).toBe(flushes)
    expect(vcpu.read(PAGE)).toEqual({ kind: 'memory', value: 6 })
  })

  it.each(FORMATS)('loses a right that went while another came: $format', ({ format }) => {
    const { tables, vcpu, store } = bench(format)
    const entry = tables.map(PAGE, 0x5000, Entry.write)
    expect(vcpu.write(PAGE, 1).kind).toBe('memory')
    // Read-only, and the user's: a user's read brings the entry up to date.
    store(entry, 0x5000n | Entry.present | Entry.user | Entry.accessed | Entry.dirty)
    expect(vcpu.read(PAGE, true).kind).toBe('memory')
    vcpu.invalidate(PAGE)
    expect(vcpu.write(PAGE, 2)).toEqual({ kind: 'fault', code: 3 })
  })

  it.each(['pae', 'fourLevel'] as const)('takes a bit that became reserved for a fault after INVLPG: %s', (format) => {
    const { tables, vcpu, enable, store } = bench(format)
    enable()
    vcpu.setMode({ nxe: false })
    const entry = tables.map(PAGE, 0x5000, Entry.write)
    expect(vcpu.read(PAGE).kind).toBe('memory')
    store(entry, 0x5063n | Entry.noExecute)
    vcpu.invalidate(PAGE)
    expect(vcpu.read(PAGE)).toEqual({ kind: 'fault', code: 9 })
  })
})

describe('a right that one vCPU loses while another right comes', () => {
  it('is lost by the other vCPU, too, after its INVLPG', () => {
    const { strategy, host, guest, enable, vcpu, tables, store } = bench('fourLevel')
    const entry = tables.map(PAGE, 0x5000, Entry.write)
    const other = new TestVcpu(strategy, host, guest, 1)
    enable(other)
    for (const each of [vcpu, other]) expect(each.write(PAGE, 1).kind).toBe('memory')
    store(entry, 0x5000n | Entry.present | Entry.user | Entry.accessed | Entry.dirty)
    expect(vcpu.read(PAGE, true).kind).toBe('memory')
    other.invalidate(PAGE)
    expect(other.write(PAGE, 2)).toEqual({ kind: 'fault', code: 3 })
  })
})

describe('frames for shadow tables', () => {
  it('come from tables used longest ago when the host has none left', () => {
    const { tables, vcpu, host, counted } = bench('fourLevel', { maxTables: 10_000 })
    for (let n = 0n; n < 12n; n++) tables.map(PAGE * (n + 1n), 0x5000, Entry.write)
    vcpu.read(PAGE)
    vcpu.read(2n * PAGE)
    while (host.allocateFrame() !== undefined);
    for (let n = 2n; n < 12n; n++) {
      expect(vcpu.read(PAGE * (n + 1n)).kind).toBe('memory')
      // In use all the time: these are never the oldest.
      vcpu.flushAll()
      vcpu.invalidate(PAGE)
      expect(vcpu.read(PAGE).kind).toBe('memory')
    }
    expect(counted(['hiddenFaults'], () => vcpu.read(12n * PAGE))).toEqual([0])
  })

  it('that a large page was split into come back with it', () => {
    const { tables, vcpu, store, count } = bench('fourLevel')
    const entry = tables.map(PAGE, 0, Entry.write, 2)
    const before = count('tableFrames')
    vcpu.read(PAGE + 0x5000n)
    const split = count('tableFrames')
    expect(split).toBeGreaterThan(before)
    store(entry, 0n)
    expect(count('tableFrames')).toBeLessThan(split)
    expect(vcpu.read(PAGE + 0x5000n).kind).toBe('fault')
  })
})

describe('vCPUs under shadow paging', () => {
  it.each(['none', 'pae', 'fourLevel'] as const)('have roots of their own where they are not the guest’s: %s', (format) => {
    const { strategy, host, guest, count, enable, vcpu, tables } = bench(format)
    tables.map(PAGE, 0x5000, Entry.write)
    const one = count('tableFrames')
    const other = new TestVcpu(strategy, host, guest, 1)
    const roots = count('tableFrames')
    expect(roots).toBe(one + 1)
    enable(other)
    if (format === 'none') enable()
    // A guest's root is shared; one vCPU that leaves it does not take it from the other.
    for (const each of [vcpu, other]) expect(each.read(PAGE).kind).toBe('memory')
    other.setMode({ format: 'none' })
    expect(vcpu.read(PAGE).kind).toBe('memory')
    expect(other.read(0x5000n)).toEqual(vcpu.read(PAGE))
    strategy.dispose()
  })

  it.each([1, 3])('flush what one of them takes back: 0 and %d', (index) => {
    const { strategy, host, guest, enable, vcpu, tables, store } = bench('fourLevel')
    const entry = tables.map(PAGE, 0x5000, Entry.write)
    const other = new TestVcpu(strategy, host, guest, index)
    enable(other)
    for (const each of [vcpu, other]) expect(each.write(PAGE, 1).kind).toBe('memory')
    store(entry, 0n)
    vcpu.invalidate(PAGE)
    expect([vcpu.read(PAGE).kind, other.read(PAGE).kind]).toEqual(['fault', 'fault'])
  })

  it('cannot be attached where the host has no frame, which the error names', () => {
    const host = createTestHostMemory(600)
    const guest = createTestGuestMemory({ hostMemory: host, ram: 2 * MIB })
    const strategy = createShadowPaging({}, { hostMemory: host, guestMemory: guest, guestFrames: guest, metrics: createTestMetrics() })
    while (host.allocateFrame() !== undefined);
    expect(() => new TestVcpu(strategy, host, guest)).toThrow('no host frame is free for the root of the shadow page tables')
  })
})
