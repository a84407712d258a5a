/**
 * Conformance suite of the `X86PagingStrategy` role: under any strategy a guest finds the translations, faults, accessed and dirty bits that
 * its own tables say, by the book. `testPagingStrategy('ept', createEptPaging, it)`.
 */

import { gpa } from '@nonroot/contracts'
import type { GuestFrames, GuestMemory, HostMemory, Metrics, X86PagingStrategy } from '@nonroot/contracts'
import type { TestRegistrar } from '../check.ts'
import { createTestGuestMemory, type TestGuestMemoryOptions } from '../guest-memory.ts'
import { createTestHostMemory } from '../host-memory.ts'
import { createTestMetrics } from '../metrics.ts'
import { expect } from './expect.ts'
import { Entry, GuestTables, OPEN, type TableFormat } from './guest-tables.ts'
import { TestVcpu, type AccessKind, type AccessResult } from './test-vcpu.ts'

export interface PagingTestContext {
  readonly hostMemory: HostMemory
  readonly guestMemory: GuestMemory
  readonly guestFrames: GuestFrames
  readonly metrics: Metrics
}

export interface PagingSuiteOptions {
  /** Random operations per format. */
  readonly steps?: number
  /** Formats of the guest's tables under which registers of assigned devices are mapped; accesses exit under others. Default: none. */
  readonly mapsRegisters?: readonly TableFormat[]
}

const MIB = 0x10_0000
/** Tables are allocated from here, and mapped for the guest itself at WINDOW. */
const TABLES = 8 * MIB
const TABLE_BYTES = MIB
/** ROM just below 16 MiB. */
const ROM = 15 * MIB
const WINDOW = 0x3000_0000n
const FORMATS: readonly TableFormat[] = ['legacy32', 'pae', 'fourLevel']
const KINDS: readonly AccessKind[] = ['read', 'write', 'fetch']
/** Each access comes first once: what is tried before it may bring a right up to date that would have been kept. */
const ACCESS_ORDERS: readonly (readonly (readonly [AccessKind, boolean])[])[] = [true, false].flatMap((first) =>
  KINDS.map((kind) => [
    [kind, first] as const,
    ...[first, !first].flatMap((user) => KINDS.map((other) => [other, user] as const)),
  ]),
)

/** A guest with 9 MiB of RAM, each frame of which holds its own address, and a vCPU. */
export class PagingBench {
  readonly host: HostMemory
  readonly memory: GuestMemory & GuestFrames
  readonly strategy: X86PagingStrategy
  readonly vcpu: TestVcpu
  readonly metrics = createTestMetrics()
  private nextTable = TABLES

  constructor(create: (context: PagingTestContext) => X86PagingStrategy, hostFrames = 8192) {
    this.host = createTestHostMemory(hostFrames)
    const options: TestGuestMemoryOptions = {
      hostMemory: this.host,
      ram: [
        { start: gpa(0), length: 9 * MIB, kind: 'ram' },
        { start: gpa(ROM), length: MIB, kind: 'rom' },
      ],
    }
    this.memory = createTestGuestMemory(options)
    this.strategy = create({
      hostMemory: this.host,
      guestMemory: this.memory,
      guestFrames: this.memory,
      metrics: this.metrics,
    })
    options.paging = this.strategy
    this.vcpu = new TestVcpu(this.strategy, this.host, this.memory)
  }

  label(...pages: number[]): void {
    for (const page of pages) this.memory.writeU32(page, page | 1)
  }
  tables(format: TableFormat): GuestTables {
    const tables = new GuestTables(this.memory, format, () => {
      const table = this.nextTable
      this.nextTable += 4096
      if (table >= TABLES + TABLE_BYTES) throw new Error('bench is out of tables')
      return table
    })
    return tables
  }
  /** Let the guest see its own tables at WINDOW. */
  mapWindow(tables: GuestTables): void {
    for (let at = 0; at < TABLE_BYTES; at += 4096) tables.map(WINDOW + BigInt(at), TABLES + at, Entry.write)
  }
  enable(tables: GuestTables, mode: Partial<TestVcpu['registers']> = {}): void {
    this.vcpu.setMode({
      format: tables.format,
      root: BigInt(tables.root),
      wp: true,
      nxe: tables.format !== 'legacy32',
      pse: true,
      ...mode,
    })
  }
  /** The guest changes one of its entries by a store through WINDOW. */
  store(tables: GuestTables, entryAddress: number, entry: bigint): void {
    const result = this.vcpu.writeEntry(WINDOW + BigInt(entryAddress - TABLES), entry, tables.bytes)
    expect(result.kind).toBe('memory')
    expect(tables.read(entryAddress), 'the store is in guest memory').toBe(entry)
  }

  /** Of the tables, before and after an access: there are many. */
  private readonly images = [new Uint8Array(TABLE_BYTES), new Uint8Array(TABLE_BYTES)] as const
  private tableBytes(image: 0 | 1): Uint8Array {
    const bytes = this.images[image].subarray(0, this.nextTable - TABLES)
    this.memory.readBytes(TABLES, bytes)
    return bytes
  }

  /** Do the access and compare result and table bits with what the guest's tables say. */
  check(linear: bigint, kind: AccessKind, user = false, value = 0xabcd_0001): AccessResult {
    const access = { write: kind === 'write', user, fetch: kind === 'fetch' }
    const walk = this.vcpu.guestWalk(linear, access)
    const expected = this.tableBytes(0)
    const view = new DataView(expected.buffer)
    if ('marks' in walk) {
      for (const { address, bits } of walk.marks) {
        const at = address - TABLES
        view.setUint32(at, view.getUint32(at, true) | bits, true)
      }
    }
    const inTables = 'address' in walk && walk.address >= TABLES && walk.address < TABLES + TABLE_BYTES
    const result = this.vcpu.access(linear, kind, user, value)
    const where = `${kind} of ${linear.toString(16)} as ${user ? 'user' : 'supervisor'}`
    if ('fault' in walk) {
      expect(result, where).toEqual({ kind: 'fault', code: walk.fault })
    } else if (
      !this.memory.isRam(walk.address, 4) &&
      (kind === 'write' || walk.address < ROM || walk.address >= ROM + MIB)
    ) {
      expect(result, where).toEqual({ kind: 'mmio', address: walk.address })
    } else {
      expect(result.kind, `${where}: ${JSON.stringify(result)}`).toBe('memory')
      const bytes = new Uint8Array(4)
      this.memory.readBytes(walk.address, bytes)
      if ('value' in result) {
        expect(result.value, where).toBe(new DataView(bytes.buffer).getUint32(0, true))
        if (kind === 'write') expect(result.value, where).toBe(value)
      }
    }
    if (!(inTables && kind === 'write')) {
      expect(firstDifference(this.tableBytes(1), expected), `accessed and dirty bits after ${where}`).toBe(undefined)
    }
    return result
  }
}

/** Address of the first word in which two images of the tables differ. */
function firstDifference(left: Uint8Array, right: Uint8Array): string | undefined {
  const [one, two] = [left, right].map(({ buffer, length }) => new Int32Array(buffer, 0, length / 4)) as [Int32Array, Int32Array]
  let at = 0
  while (at < one.length && one[at] === two[at]) at++
  return at === one.length
    ? undefined
    : `${(TABLES + at * 4).toString(16)}: ${one[at]!.toString(16)} not ${two[at]!.toString(16)}`
}

/** xorshift32: the same on every run. */
function createRandom(seed: number): (limit: number) => number {
  let state = seed
  return (limit) => {
    state ^= state << 13
    state ^= state >>> 17
    state ^= state << 5
    return (state >>> 0) % limit
  }
}

export function testPagingStrategy(
  name: string,
  create: (context: PagingTestContext) => X86PagingStrategy,
  it: TestRegistrar,
  { steps = 1500, mapsRegisters = [] }: PagingSuiteOptions = {},
): void {
  const test: TestRegistrar = (title, run) => it(`paging strategy ${name}: ${title}`, run)
  test('passes addresses unchanged while paging is off', () => {
    const bench = new PagingBench(create)
    bench.label(0x1000, 0x2000, 5 * MIB)
    for (const address of [0x1000n, 0x2000n, BigInt(5 * MIB)]) {
      bench.check(address, 'read')
      bench.check(address, 'write', false, 7)
      bench.check(address, 'fetch', true)
    }
    expect(bench.vcpu.read(0xfee0_0000n)).toEqual({ kind: 'mmio', address: 0xfee0_0000 })
    expect(bench.vcpu.write(0xfee0_0020n, 1)).toEqual({ kind: 'mmio', address: 0xfee0_0020 })
  })

  test('reads ROM and reports writes to it', () => {
    const bench = new PagingBench(create)
    bench.memory.writeRom(ROM, Uint8Array.of(1, 2, 3, 4))
    expect(bench.vcpu.read(BigInt(ROM))).toEqual({ kind: 'memory', value: 0x0403_0201 })
    expect(bench.vcpu.write(BigInt(ROM), 9)).toEqual({ kind: 'mmio', address: ROM })
    expect(bench.vcpu.access(BigInt(ROM), 'fetch')).toEqual({ kind: 'memory', value: 0x0403_0201 })
  })

  for (const format of FORMATS) {
    const within: TestRegistrar = (title, run) => test(`${format}: ${title}`, run)
    const sizes = format === 'legacy32' ? [1, 2] : format === 'pae' ? [1, 2] : [1, 2, 3]

    for (const level of sizes)
      within(`maps pages at level ${level}`, () => {
        const bench = new PagingBench(create)
        bench.label(0x3000, 0x5000)
        const tables = bench.tables(format)
        tables.map(0x4000_0000n, level === 1 ? 0x3000 : 0, Entry.write | Entry.user, level)
        bench.enable(tables)
        const offset = level === 1 ? 0x10n : 0x3010n
        for (const kind of KINDS) for (const user of [false, true]) bench.check(0x4000_0000n + offset, kind, user)
        bench.check(0x4000_5000n, 'read')
        bench.check(0x7000_0000n, 'write', true)
      })

    within('honours U/S, R/W and NX at every level, with WP, NXE, SMEP, SMAP and AC', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000)
      const tables = bench.tables(format)
      const linears: bigint[] = []
      const choices = format === 'legacy32' ? 4 : 8
      const bits = (choice: number): bigint =>
        (choice & 1 ? Entry.write : 0n) | (choice & 2 ? Entry.user : 0n) | (choice & 4 ? Entry.noExecute : 0n)
      for (let upper = 0; upper < choices; upper++) {
        const region = 0x1000_0000n + (BigInt(upper) << 22n)
        tables.set(tables.entry(region, 2), 0n)
        tables.entry(region, 1, Entry.present | bits(upper))
        for (let leaf = 0; leaf < choices; leaf++) {
          const linear = region + BigInt(leaf * 4096)
          tables.map(linear, 0x3000, bits(leaf))
          linears.push(linear)
        }
      }
      for (let mode = 0; mode < 16; mode++) {
        const nxe = format !== 'legacy32' && (mode & 8) === 0
        bench.enable(tables, { wp: (mode & 1) === 0, smep: (mode & 2) !== 0, smap: (mode & 4) !== 0, nxe })
        for (const linear of linears) {
          for (const user of [false, true]) {
            for (const kind of KINDS) {
              bench.vcpu.registers.ac = (mode & 4) !== 0 && kind === 'write'
              bench.check(linear, kind, user)
            }
          }
        }
        bench.vcpu.registers.ac = false
      }
    })

    within('reports reserved bits', () => {
      const bench = new PagingBench(create)
      const tables = bench.tables(format)
      const bad: bigint[] = []
      if (format === 'legacy32') {
        tables.map(0x1000_0000n, 1 << 21, Entry.write, 2)
        bad.push(0x1000_0000n)
      } else {
        tables.map(0x1000_0000n, 0x3000, 1n << 45n)
        tables.map(0x1100_0000n, 0x2000, Entry.write, 2)
        tables.map(0x1200_0000n, 0x3000, Entry.noExecute)
        bad.push(0x1000_0000n, 0x1100_0000n, 0x1200_0000n)
      }
      bench.enable(tables, { nxe: false })
      for (const linear of bad) {
        for (const kind of KINDS) {
          expect(bench.check(linear, kind, true)).toMatchObject({ kind: 'fault' })
        }
      }
    })

    within('reports MMIO at the guest-physical address', () => {
      const bench = new PagingBench(create)
      const tables = bench.tables(format)
      tables.map(0x1000_0000n, 0xfee0_0000, Entry.write)
      tables.map(0x1040_0000n, 0xfec0_0000, Entry.write, 2)
      bench.enable(tables)
      expect(bench.check(0x1000_0020n, 'read')).toEqual({ kind: 'mmio', address: 0xfee0_0020 })
      expect(bench.check(0x1000_0020n, 'write')).toEqual({ kind: 'mmio', address: 0xfee0_0020 })
      bench.check(0x1040_0010n, 'write')
      bench.check(0x1040_0010n, 'read', true)
    })

    within('follows an entry that the guest changes and invalidates', () => {
      for (const order of ACCESS_ORDERS) {
        const bench = new PagingBench(create)
        bench.label(0x3000, 0x4000)
        const tables = bench.tables(format)
        bench.mapWindow(tables)
        const linear = 0x1000_0000n
        const entry = tables.map(linear, 0x3000, Entry.write)
        bench.enable(tables)
        bench.check(linear, 'read')
        for (const next of [
          0x4000n | Entry.present | Entry.write,
          0x4000n | Entry.present,
          0n,
          0x3000n | Entry.present | Entry.user,
          0x3000n | Entry.present | Entry.write | Entry.user,
          0x3000n | Entry.present | Entry.write | Entry.accessed,
          0x3000n | Entry.present | Entry.write | Entry.user,
          0x3000n | Entry.present | Entry.user,
          0x4000n | Entry.present | Entry.user,
          0x4000n | Entry.present,
          0xfee0_0000n | Entry.present | Entry.write,
        ]) {
          bench.store(tables, entry, next)
          bench.vcpu.invalidate(linear)
          for (const [kind, user] of order) bench.check(linear, kind, user)
        }
      }
    })

    within('needs no invalidation where an entry was not present before', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000)
      const tables = bench.tables(format)
      bench.mapWindow(tables)
      const linear = 0x1000_0000n
      const entry = tables.entry(linear, 1)
      bench.enable(tables)
      bench.check(linear, 'read')
      bench.store(tables, entry, 0x3000n | Entry.present)
      bench.check(linear, 'read')
      bench.check(linear + 4096n, 'read')
      bench.store(tables, entry + tables.bytes, 0x4000n | Entry.present | Entry.write)
      bench.check(linear + 4096n, 'write')
    })

    within('follows a change above the leaves', () => {
      for (const order of ACCESS_ORDERS) {
        const bench = new PagingBench(create)
        bench.label(0x3000, 0x4000)
        const tables = bench.tables(format)
        bench.mapWindow(tables)
        const linear = 0x1000_0000n
        tables.map(linear, 0x3000, Entry.write | Entry.user)
        tables.map(0x2000_0000n, 0x4000, Entry.write | Entry.user)
        bench.enable(tables)
        bench.check(linear, 'write')
        const above = tables.entry(linear, 2)
        const other = tables.read(tables.entry(0x2000_0000n, 2))
        for (const next of [other, other & ~Entry.write, other, other & ~Entry.user, 0n, Entry.large | OPEN, other]) {
          bench.store(tables, above, next)
          bench.vcpu.setRoot(BigInt(tables.root))
          for (const [kind, user] of order) bench.check(linear, kind, user)
        }
      }
    })

    within('keeps address spaces apart and shares what they share', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000, 0x4000, 0x5000)
      const spaces = [bench.tables(format), bench.tables(format)]
      for (const tables of spaces) bench.mapWindow(tables)
      const [one, two] = spaces as [GuestTables, GuestTables]
      one.map(0x1000_0000n, 0x3000, Entry.write)
      two.map(0x1000_0000n, 0x4000, Entry.write)
      const shared = one.map(0x2000_0000n, 0x5000, Entry.write)
      two.set(two.entry(0x2000_0000n, 2), one.read(one.entry(0x2000_0000n, 2)))
      bench.enable(one)
      for (let turn = 0; turn < 6; turn++) {
        const tables = spaces[turn % 2]!
        bench.vcpu.setRoot(BigInt(tables.root))
        bench.check(0x1000_0000n, 'read')
        bench.check(0x2000_0000n, 'read')
        bench.store(tables, shared, (turn % 3 === 0 ? 0x3000n : 0x5000n) | Entry.present | Entry.write)
        bench.vcpu.invalidate(0x2000_0000n)
        bench.check(0x2000_0000n, 'write', false, turn)
      }
    })

    within('takes a table that becomes ordinary memory and back', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000)
      const tables = bench.tables(format)
      bench.mapWindow(tables)
      const linear = 0x1000_0000n
      const leaf = tables.map(linear, 0x3000, Entry.write)
      const above = tables.entry(linear, 2)
      const link = tables.read(above)
      bench.enable(tables)
      for (let turn = 0; turn < 3; turn++) {
        bench.check(linear, 'write')
        bench.store(tables, above, 0n)
        bench.vcpu.setRoot(BigInt(tables.root))
        // The frame is data now: scribble over it.
        for (let i = 0; i < 16; i++) bench.store(tables, leaf + i * 16, BigInt(turn * 7919 + i) << 12n)
        bench.check(linear, 'read')
        bench.store(tables, leaf, 0x3000n | Entry.present | Entry.write)
        bench.store(tables, above, link)
        bench.check(linear, 'write')
      }
    })

    within('follows leaves that were changed while the path to them was being changed', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000, 0x4000)
      const tables = bench.tables(format)
      bench.mapWindow(tables)
      // Not below the tables that map the window.
      const linear = format === 'fourLevel' ? 0x80_0000_0000n : 0x1000_0000n
      const leaf = tables.map(linear, 0x3000, Entry.write)
      tables.map(linear + 4096n, 0x5000, Entry.write)
      bench.enable(tables)
      bench.check(linear, 'write')
      for (let level = 2; level <= (format === 'fourLevel' ? 3 : 2); level++) {
        bench.store(tables, leaf, 0x4000n | Entry.present)
        // Other entries of a table above, so often that it seems to have become ordinary memory.
        const above = tables.entry(linear, level)
        for (let i = 1; i <= 4; i++) bench.store(tables, above + i * tables.bytes, 0n)
        bench.vcpu.setRoot(BigInt(tables.root))
        bench.check(linear + 4096n, 'read')
        for (const kind of KINDS) bench.check(linear, kind)
        bench.store(tables, leaf, 0x3000n | Entry.present | Entry.write)
        bench.vcpu.setRoot(BigInt(tables.root))
        bench.check(linear, 'write')
      }
    })

    within('survives a table that maps itself', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000)
      const tables = bench.tables(format)
      const linear = 0x0000_0000n
      const leaf = tables.map(linear, 0x3000, Entry.write)
      const own = Math.floor(leaf / 4096) * 4096
      tables.map(linear + 0x5000n, own, Entry.write)
      bench.enable(tables)
      bench.check(linear, 'read')
      const at = 0x5000n + BigInt(leaf - own) + BigInt(tables.bytes * 2)
      bench.vcpu.writeEntry(at, 0x4000n | Entry.present | Entry.write, tables.bytes)
      bench.check(0x2000n, 'write', false, 5)
      // The root through itself, as a table of level 1.
      tables.map(linear + 0x6000n, tables.root, Entry.write)
      bench.check(0x6000n, 'read')
      bench.check(0x6800n, 'write', false, 0)
      bench.check(linear, 'read')
    })

    within('notices frames taken away, replaced and write-protected', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000)
      const tables = bench.tables(format)
      tables.map(0x1000_0000n, 0x3000, Entry.write)
      bench.enable(tables)
      bench.check(0x1000_0000n, 'write', false, 0x1234)
      bench.memory.release([{ address: gpa(0x3000), length: 4096 }])
      expect(bench.check(0x1000_0000n, 'read')).toEqual({ kind: 'memory', value: 0 })
      bench.memory.setDirtyLog(true)
      bench.memory.takeDirty()
      bench.check(0x1000_0000n, 'read')
      expect(bench.memory.takeDirty().filter((page) => page < TABLES)).toEqual([])
      bench.check(0x1000_0000n, 'write', false, 1)
      bench.check(0x1000_0004n, 'write', false, 2)
      expect(bench.memory.takeDirty().filter((page) => page < TABLES)).toEqual([0x3000])
      bench.check(0x1000_0000n, 'write', false, 3)
      expect(bench.memory.takeDirty().filter((page) => page < TABLES)).toEqual([0x3000])
      // Shared copy-on-write: the guest's write gives it a frame of its own.
      const frame = bench.memory.peek(0x3000)!
      bench.memory.setDirtyLog(false)
      bench.host.shareFrame(frame)
      bench.strategy.onMemoryChange([{ address: gpa(0x3000), length: 4096 }], 'writeProtected')
      expect(bench.check(0x1000_0000n, 'read')).toEqual({ kind: 'memory', value: 3 })
      bench.check(0x1000_0000n, 'write', false, 4)
      expect(bench.memory.peek(0x3000) === frame).toBe(false)
      expect(bench.host.view.getUint32(frame, true)).toBe(3)
    })

    within('waits for pages that are away: the one it accesses, and those of its tables', async () => {
      const bench = new PagingBench(create)
      const linear = 0x1000_0000n
      bench.label(0x3000)
      const tables = bench.tables(format)
      tables.map(linear, 0x3000, Entry.write)
      bench.enable(tables)
      const levels = { legacy32: 2, pae: 3, fourLevel: 4 }[format]
      const onTheWay = Array.from({ length: levels }, (_, above) => tables.entry(linear, above + 1))
      for (const kind of KINDS) {
        for (const [above, address] of [0x3000, ...onTheWay].entries()) {
          const page = address - (address % 4096)
          bench.vcpu.write(linear, 0x77)
          let content = new Uint8Array()
          const parked = bench.memory.park(page, {
            keep: (_, bytes) => ((content = bytes.slice()), true),
            fill: async () => content,
            fillNow: () => expect('fillNow').toBe('not called: a vCPU can wait'),
          })
          expect(parked).toBe('done')
          let waited = 0
          let result = bench.vcpu.access(linear, kind, false, 0x78)
          for (; result.kind === 'wait' && waited < 3; waited++) {
            expect(result.address - (result.address % 4096)).toBe(page)
            expect(await bench.memory.ready(result.address)).toBe(undefined)
            result = bench.vcpu.access(linear, kind, false, 0x78)
          }
          // PAE's root is in registers.
          expect(waited, `${kind}, page ${page}`).toBe(format === 'pae' && above === 3 ? 0 : 1)
          expect(result).toEqual({ kind: 'memory', value: kind === 'write' ? 0x78 : 0x77 })
          bench.memory.readU8(page)
        }
      }
    })

    within('tells pages in use from idle ones', () => {
      const bench = new PagingBench(create)
      if (!bench.strategy.takeAccessed) return
      const tables = bench.tables(format)
      tables.map(0x1000_0000n, 0x3000, Entry.write)
      bench.enable(tables)
      bench.check(0x1000_0000n, 'read')
      expect(bench.strategy.takeAccessed(gpa(0x3000))).toBe(true)
      expect(bench.strategy.takeAccessed(gpa(0x3000))).toBe(false)
      bench.check(0x1000_0000n, 'read')
      expect(bench.strategy.takeAccessed(gpa(0x3000))).toBe(true)
    })

    within('restores, and goes on with the same guest', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000)
      const tables = bench.tables(format)
      tables.map(0x1000_0000n, 0x3000, Entry.write)
      bench.enable(tables)
      bench.check(0x1000_0000n, 'write', false, 77)
      bench.strategy.restore(bench.strategy.save())
      bench.check(0x1000_0000n, 'read')
      bench.check(0x1000_0000n, 'write', false, 78)
    })

    within('restored, goes by the tables that are in memory now', () => {
      const bench = new PagingBench(create)
      bench.label(0x3000, 0x5000)
      const tables = bench.tables(format)
      const entries = [0x1000_0000n, 0x1000_1000n, 0x1040_0000n].map((linear) =>
        tables.map(linear, 0x3000, Entry.write | Entry.user),
      )
      bench.enable(tables)
      const all = (): void => {
        for (const linear of [0x1000_0000n, 0x1000_1000n, 0x1040_0000n])
          for (const order of ACCESS_ORDERS) for (const [kind, user] of order) bench.check(linear, kind, user)
      }
      all()
      const saved = bench.strategy.save()
      // The memory is another's: moved, narrowed, taken away, and nothing of it was invalidated.
      tables.set(entries[0]!, 0x5000n | Entry.present | Entry.write | Entry.user)
      tables.set(entries[1]!, 0x3000n | Entry.present)
      tables.set(entries[2]!, 0n)
      bench.strategy.restore(saved)
      all()
    })

    within('registers of assigned devices are reached as the guest maps them, until they are taken away', () => {
      const bench = new PagingBench(create)
      const [page, registers, linear] = [0x8000_0000, 0xff_0000_2000, 0x4000_0000n]
      const placed = new Map([[page, registers]])
      Object.assign(bench.memory, { registerPage: (address: number) => placed.get(address - (address % 4096)) })
      bench.label(0x3000)
      const tables = bench.tables(format)
      tables.map(linear, page, Entry.write)
      tables.map(linear + 0x1000n, page, 0n)
      tables.map(linear + 0x2000n, page + 0x1000, Entry.write)
      bench.mapWindow(tables)
      bench.enable(tables)
      const { vcpu } = bench
      const reached = mapsRegisters.includes(format)
        ? { kind: 'registers', address: registers + 0x10 }
        : { kind: 'mmio', address: page + 0x10 }
      expect(vcpu.read(linear + 0x10n)).toEqual(reached)
      expect(vcpu.write(linear + 0x10n, 1)).toEqual(reached)
      expect(vcpu.read(linear + 0x1010n)).toEqual(reached)
      const exits = (): number => vcpu.counts.pageFault + vcpu.counts.secondStage
      const before = exits()
      for (let again = 0; again < 5; again++) expect(vcpu.write(linear + 0x10n, again)).toEqual(reached)
      if (reached.kind === 'registers') expect(exits()).toBe(before)
      // As the guest's own tables say: not by the user, not written where it is read-only; the next page has no device.
      expect(vcpu.read(linear + 0x10n, true).kind).toBe('fault')
      expect(vcpu.write(linear + 0x1010n, 1).kind).toBe('fault')
      expect(vcpu.read(linear + 0x2010n)).toEqual({ kind: 'mmio', address: page + 0x1010 })
      expect(vcpu.access(linear + 0x10n, 'fetch')).toEqual({ kind: 'mmio', address: page + 0x10 })
      expect(vcpu.write(linear + 0x10n, 2)).toEqual(reached)
      // The guest maps memory in its place, and the registers again.
      for (const [to, kind] of [
        [0x3000, 'memory'],
        [page, reached.kind],
      ] as const) {
        bench.store(tables, tables.entry(linear, 1), BigInt(to) | Entry.present | Entry.write)
        vcpu.invalidate(linear)
        expect(vcpu.read(linear + 0x10n).kind).toBe(kind)
      }
      placed.clear()
      bench.strategy.onMemoryChange([{ address: gpa(page), length: 4096 }], 'unmapped')
      for (const at of [linear, linear + 0x1000n])
        expect(vcpu.read(at + 0x10n)).toEqual({ kind: 'mmio', address: page + 0x10 })
    })

    within(`agrees with the book over ${steps} random steps`, () => {
      soak(new PagingBench(create), format, steps)
    })
  }

  test('gives back every frame', () => {
    const bench = new PagingBench(create)
    const tables = bench.tables('fourLevel')
    bench.mapWindow(tables)
    for (let i = 0; i < 64; i++) tables.map(BigInt(i) << 21n, 0x10_0000 + i * 4096, Entry.write)
    bench.enable(tables)
    for (let i = 0; i < 64; i++) bench.check(BigInt(i) << 21n, 'write')
    bench.strategy.dispose()
    expect(bench.host.totalFrames - 1 - bench.host.freeFrames).toBe(bench.memory.residentFrames)
  })

  test('answers rightly or fails the VM, not the host, when frames run out', () => {
    const bench = new PagingBench(create, 400)
    const tables = bench.tables('fourLevel')
    for (let i = 0; i < 60; i++) tables.map(BigInt(i) << 30n, 0x3000, Entry.write)
    while (bench.host.freeFrames > 4) bench.host.allocateFrame()
    let failed = ''
    try {
      bench.label(0x3000)
      bench.enable(tables)
      for (let i = 0; i < 60 && !failed; i++) {
        const result = bench.vcpu.read(BigInt(i) << 30n)
        if (result.kind === 'failure') failed = 'failure'
        else expect(result).toEqual({ kind: 'memory', value: 0x3001 })
      }
    } catch (error) {
      // The test memory throws where the kernel's would reclaim.
      failed = String(error)
    }
    // A strategy that gives up old tables for new ones goes on.
    expect(failed).toMatch(/^$|exhausted|failure/)
    // The host has lost nothing: what the strategy took comes back.
    const before = bench.host.freeFrames
    bench.strategy.dispose()
    expect(bench.host.freeFrames).toBeGreaterThan(before)
  })
}

/** A guest that changes its tables at random, by the rules: whatever it takes back or narrows it invalidates. */
function soak(bench: PagingBench, format: TableFormat, steps: number): void {
  const random = createRandom(0x1234_5678 ^ format.length)
  const spaces = [bench.tables(format), bench.tables(format), bench.tables(format)]
  const regions = [0x1000_0000n, 0x1040_0000n, 0x1080_0000n, 0x2000_0000n]
  const frames = Array.from({ length: 12 }, (_, i) => 0x10_0000 + i * 4096)
  bench.label(...frames)
  const leafTables: number[] = []
  for (const region of regions) {
    const table = Math.floor(spaces[0]!.entry(region, 1) / 4096) * 4096
    leafTables.push(table)
  }
  for (const tables of spaces) {
    bench.mapWindow(tables)
    regions.forEach((region, i) => tables.set(tables.entry(region, 2), BigInt(leafTables[i]!) | OPEN))
  }
  const seen = new Set<string>()
  const modes = [{}, { smep: true, smap: true }, { wp: false }, { nxe: false }]
  let current = spaces[0]!
  bench.enable(current)
  const randomEntry = (): bigint => {
    const kind = random(10)
    if (kind === 0) return 0n
    const target = kind === 1 ? 0xfee0_0000 : kind === 2 ? ROM : frames[random(frames.length)]!
    return (
      BigInt(target) |
      (random(8) ? Entry.present : 0n) |
      (random(3) ? Entry.write : 0n) |
      (random(2) ? Entry.user : 0n) |
      (random(2) ? Entry.accessed : 0n) |
      (random(2) ? Entry.dirty : 0n) |
      (format !== 'legacy32' && random(6) === 0 ? Entry.noExecute : 0n)
    )
  }
  const linearOf = (): bigint => regions[random(regions.length)]! + BigInt(random(4) * 4096 + random(1024) * 4)
  for (let step = 0; step < steps; step++) {
    switch (random(16)) {
      case 0: {
        current = spaces[random(spaces.length)]!
        bench.vcpu.setRoot(BigInt(current.root))
        break
      }
      case 1: {
        // An upper entry: another table, other rights, a large page, nothing.
        const region = regions[random(regions.length)]!
        const tables = spaces[random(spaces.length)]!
        const entry =
          random(5) === 0
            ? Entry.present | Entry.write | Entry.large
            : random(5) === 0
              ? 0n
              : BigInt(leafTables[random(leafTables.length)]!) | (random(3) ? OPEN : Entry.present | Entry.user)
        bench.store(tables, tables.entry(region, 2), entry)
        bench.vcpu.setRoot(BigInt(current.root))
        break
      }
      case 2:
      case 3:
      case 4:
      case 5: {
        // A leaf. Tables are shared, so that every address it serves must be invalidated.
        const index = random(4)
        const at = leafTables[random(leafTables.length)]! + index * current.bytes
        bench.store(current, at, randomEntry())
        if (random(2)) bench.vcpu.setRoot(BigInt(current.root))
        else for (const region of regions) bench.vcpu.invalidate(region + BigInt(index * 4096))
        break
      }
      case 6: {
        const change = modes[random(modes.length)]!
        if (random(8) === 0) {
          // NX bits fault while NXE is off: the window has none.
          bench.enable(current, {
            smep: false,
            smap: false,
            ...change,
            nxe: format !== 'legacy32' && !('nxe' in change),
          })
        }
        break
      }
      case 7: {
        const frame = frames[random(frames.length)]!
        const way = random(8)
        if (way === 0) bench.memory.release([{ address: gpa(frame), length: 4096 }])
        else if (way < 3) parkInPlace(bench.memory, way === 1 ? frame : leafTables[random(leafTables.length)]!)
        else if (way === 3) shareAnew(bench, frame)
        else bench.strategy.onMemoryChange([{ address: gpa(frame), length: 4096 }], 'writeProtected')
        break
      }
      case 8: {
        // Another processor's tables seen from here: read a table through the window.
        bench.check(WINDOW + BigInt(leafTables[random(leafTables.length)]! - TABLES), 'read')
        break
      }
      default:
        seen.add(bench.check(linearOf(), KINDS[random(3)]!, random(2) === 1, step).kind)
    }
  }
  expect([...seen].toSorted(), 'what the guest met').toEqual(['fault', 'memory', 'mmio'])
}

/** The page is parked until its first access, and then has its former content. */
function parkInPlace(memory: GuestFrames, address: number): void {
  let content = new Uint8Array()
  memory.park(address, {
    keep: (_, bytes) => ((content = bytes.slice()), true),
    fillNow: (_, into) => into.set(content),
  })
}

/** The page is read-only from now on: another one, somewhere on the host, is the same. */
function shareAnew({ memory, host }: PagingBench, address: number): void {
  const frame = memory.expose(address)
  if (typeof frame !== 'number') return
  const twin = host.allocateFrame()!
  host.bytes.copyWithin(twin, frame, frame + 4096)
  expect(memory.share(address, twin)).toBe('done')
  host.shareFrame(twin)
  host.freeFrame(frame)
}
