/** EPT over a guest memory that is a table of rules: which faults map what, what is flushed, counted and given back. */
import { EPT_ENTRY, gpa, RESUME, SecondStageAccess } from '@nonroot/contracts'
import type { GuestFrames, MemoryRange, PagingPort } from '@nonroot/contracts'
import { createTestHostMemory, createTestMetrics } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { createEptPaging } from './strategy.ts'
import { EptTables } from './tables.ts'

const PAGE = 4096
const MIB2 = 0x20_0000
const GIB4 = 2 ** 32
const { read, write, fetch } = SecondStageAccess
const anything = (): true => true

interface Rules {
  /** The host frame of a guest page; default: 1 GiB above its low 30 bits. */
  readonly frame?: (address: number) => number | 'wait' | undefined
  readonly isWritable?: (address: number) => boolean
  readonly registerPage?: (address: number) => number | undefined
  readonly hostFrames?: number
}

function bench({ frame = (address) => 0x4000_0000 + (address % 0x4000_0000), isWritable = anything, registerPage, hostFrames = 64 }: Rules = {}) {
  const host = createTestHostMemory(hostFrames)
  const metrics = createTestMetrics()
  const asked: string[] = []
  const guestFrames = {
    translate: (address: number, access: string) => (asked.push(access), frame(address)),
    peek: frame,
    isWritable,
    ...(registerPage && { registerPage }),
  } as unknown as GuestFrames
  const before = host.freeFrames
  const strategy = createEptPaging({}, { hostMemory: host, guestFrames, metrics })
  const calls: unknown[][] = []
  const record = (name: string) => (...args: unknown[]) => void calls.push([name, ...args])
  const port = {
    setIntercepts: record('intercepts'),
    setHardwareRoot: record('hardwareRoot'),
    setSecondStageRoot: record('root'),
    flushGuestPhysical: (ranges: readonly MemoryRange[]) => calls.push(['flush', ...ranges.map(({ address, length }) => [address, length])]),
    flushAll: record('flushAll'),
  } as unknown as PagingPort
  strategy.attach(port)
  const root = calls.find(([name]) => name === 'root')![1] as number
  const attached = calls.splice(0)
  const tables = new EptTables(host, root as never)
  const fault = (address: number, access: number = read) => strategy.onSecondStageFault(port, gpa(address), access)
  const change = (ranges: readonly [number, number][], what: 'unmapped' | 'writeProtected') =>
    strategy.onMemoryChange(ranges.map(([address, length]) => ({ address: gpa(address), length })), what)
  /** Level, host frame and rights of the leaf; undefined: none. */
  const leaf = (address: number) => {
    const word = tables.leaf(address)
    if (word < 0) return undefined
    const entry = host.words[word]!
    return [tables.level, entry & ~(tables.level === 2 ? MIB2 - 1 : PAGE - 1), entry & EPT_ENTRY.rights] as const
  }
  const count = (name: string) => metrics.samples().find((sample) => sample.name === name)!.value
  return { host, before, strategy, root, attached, calls, asked, fault, change, leaf, count, tables }
}
const ALL = EPT_ENTRY.rights
const READ_EXECUTE = EPT_ENTRY.read | EPT_ENTRY.execute
/** Nowhere two pages together. */
const scattered = (address: number): number => 0x4000_0000 + ((address * 2) % 0x4000_0000)

describe('a vCPU', () => {
  it('walks the tables from when it is attached until they are gone, and exits for nothing of its own paging', () => {
    const { attached, root, strategy, calls } = bench()
    expect(attached).toEqual([
      ['intercepts', { pageFault: false, rootWrite: false, invalidate: false, rootRead: false }],
      ['hardwareRoot', undefined],
      ['root', root, true],
    ])
    const { onRootWrite, onInvalidate, onModeChange, onTableUpdate, onPageFault } = strategy as unknown as Record<string, () => unknown>
    expect([onRootWrite!(), onInvalidate!(), onModeChange!(), onTableUpdate!()]).toEqual([RESUME, RESUME, RESUME, RESUME])
    expect(onPageFault).toThrow('does not intercept page faults')
    strategy.dispose()
    expect(calls).toEqual([['root', undefined]])
  })
})

describe('a fault', () => {
  it.each([
    ['read', read], ['write', write], ['fetch', fetch],
  ])('asks the guest memory for a %s', (name, access) => {
    const { fault, asked } = bench()
    expect(fault(0x5000, access)).toBe(RESUME)
    expect(asked).toEqual([name])
  })

  it('maps up to 256 TiB, and is an access to a device beyond', () => {
    const { fault, leaf } = bench({ frame: scattered })
    expect(fault(2 ** 48 - PAGE)).toBe(RESUME)
    expect(leaf(2 ** 48 - 1)?.[0]).toBe(1)
    expect(fault(2 ** 48)).toEqual({ next: 'mmio', address: 2 ** 48 })
    expect(leaf(0)).toBe(undefined)
  })

  it('maps each address for itself, however far up', () => {
    const { fault, leaf } = bench({ frame: (address) => 0x4000_0000 + PAGE * 2 * Math.floor(Math.log2(address)) })
    const addresses = [12, 21, 30, 31, 32, 33, 38, 39, 40, 47].map((bit) => 2 ** bit)
    for (const address of addresses) {
      expect(leaf(address)).toBe(undefined)
      expect(fault(address, write)).toBe(RESUME)
    }
    expect(addresses.map((address) => leaf(address))).toEqual(addresses.map((address) => [1, 0x4000_0000 + PAGE * 2 * Math.log2(address), ALL]))
  })

  it('waits for a frame that is away', () => {
    const { fault } = bench({ frame: () => 'wait' })
    expect(fault(0x3000)).toEqual({ next: 'wait', address: 0x3000 })
  })

  it('leaves a page read-only that must not be written yet', () => {
    const { fault, leaf } = bench({ isWritable: () => false })
    fault(0x3000)
    expect(leaf(0x3000)).toEqual([1, 0x4000_3000, READ_EXECUTE])
    fault(0x4000, write)
    expect(leaf(0x4000)).toEqual([1, 0x4000_4000, ALL])
  })

  it.each([
    ['the root alone', 1 + 1],
    ['the root and one table', 1 + 2],
  ])('fails the VM where the host has frames for %s', (_name, hostFrames) => {
    const { fault } = bench({ hostFrames })
    expect(fault(0)).toEqual({ next: 'failure', message: expect.stringContaining('no host frame') as string })
  })
  it('fails the VM where registers find no table either', () => {
    const { fault, count } = bench({ hostFrames: 2, frame: () => undefined, registerPage: () => 0xff_0000_0000 })
    expect(fault(0xc000_0000)).toEqual({ next: 'failure', message: expect.stringContaining('no host frame') as string })
    expect(count('registerMaps')).toBe(0)
  })
  it('is never served without a root', () => {
    expect(() => bench({ hostFrames: 1 })).toThrow(expect.objectContaining({ code: 'host.memory', message: expect.stringContaining('root of the EPT') as string, remedy: expect.any(String) as string }))
  })
})

describe('2 MiB at once', () => {
  it('for each 2 MiB that lie together', () => {
    const { fault, leaf, count } = bench()
    for (const address of [0x5000, MIB2 + 0x7000, 5 * MIB2, GIB4 + 3 * MIB2]) fault(address)
    expect([0, MIB2, 5 * MIB2, GIB4 + 3 * MIB2].map(leaf)).toEqual([0, 1, 5, 3].map((n) => [2, 0x4000_0000 + n * MIB2, ALL]))
    expect([leaf(2 * MIB2), count('maps2M'), count('maps4K')]).toEqual([undefined, 4, 0])
  })

  /** One page of the second 2 MiB is another. */
  it.each([0, 1, 255, 510, 511])('not where page %s is elsewhere, or must not be written', (odd) => {
    const at = MIB2 + odd * PAGE
    const touched = MIB2 + (odd === 7 ? 8 : 7) * PAGE
    const isOdd = (address: number): boolean => Math.floor(address / PAGE) === at / PAGE
    const elsewhere = bench({ frame: (address) => 0x4000_0000 + address + (isOdd(address) ? PAGE : 0) })
    elsewhere.fault(touched)
    const fixed = bench({ isWritable: (address) => !isOdd(address) })
    fixed.fault(touched)
    for (const { leaf, count } of [elsewhere, fixed]) {
      expect(leaf(touched)).toEqual([1, 0x4000_0000 + touched, ALL])
      expect([leaf(at), count('maps4K'), count('maps2M')]).toEqual([undefined, 1, 0])
    }
  })
  it('not where the frames lie together but not aligned alike', () => {
    const { fault, leaf } = bench({ frame: (address) => 0x4000_0000 + PAGE + address })
    fault(MIB2)
    expect(leaf(MIB2)).toEqual([1, 0x4000_0000 + PAGE + MIB2, ALL])
  })
  it('not where a page of them is mapped already', () => {
    let moved = true
    const { fault, leaf } = bench({ frame: (address) => 0x4000_0000 + address + (moved && address < PAGE ? MIB2 : 0) })
    fault(PAGE)
    moved = false
    fault(2 * PAGE)
    expect([leaf(PAGE), leaf(2 * PAGE), leaf(3 * PAGE)]).toEqual([[1, 0x4000_1000, ALL], [1, 0x4000_2000, ALL], undefined])
  })

  it('are split by the write to a protected page, which alone becomes writable', () => {
    const { fault, change, leaf, host, count } = bench()
    fault(MIB2)
    change([[MIB2, MIB2]], 'writeProtected')
    expect(leaf(MIB2 + 9 * PAGE)).toEqual([2, 0x4000_0000 + MIB2, READ_EXECUTE])
    const free = host.freeFrames
    fault(MIB2 + 9 * PAGE, write)
    const pages = Array.from({ length: 512 }, (_, page) => leaf(MIB2 + page * PAGE))
    expect(pages).toEqual(pages.map((_, page) => [1, 0x4000_0000 + MIB2 + page * PAGE, page === 9 ? ALL : READ_EXECUTE]))
    expect([free - host.freeFrames, count('tableFrames')]).toEqual([1, 4])
  })
  it('are dropped where there is no frame to split them: a write faults again, nothing else changes', () => {
    const { fault, change, leaf, host } = bench({ hostFrames: 5 })
    fault(MIB2)
    while (host.allocateFrame() !== undefined) continue
    change([[MIB2 + PAGE, PAGE]], 'writeProtected')
    expect(leaf(MIB2 + PAGE)).toBe(undefined)
    fault(MIB2)
    expect(leaf(MIB2)).toEqual([2, 0x4000_0000 + MIB2, ALL])
    change([[MIB2, MIB2]], 'writeProtected')
    expect(fault(MIB2, write)).toMatchObject({ next: 'failure' })
  })
  it('that end where the range ends are protected whole', () => {
    const { fault, change, leaf, host } = bench()
    for (const n of [0, 1, 2]) fault(n * MIB2)
    const free = host.freeFrames
    change([[MIB2, MIB2]], 'writeProtected')
    expect([0, 1, 2].map((n) => leaf(n * MIB2)?.[2])).toEqual([ALL, READ_EXECUTE, ALL])
    expect(host.freeFrames).toBe(free)
  })
})

describe('a change of the guest memory', () => {
  it('flushes its ranges on each vCPU if one of their pages was mapped, and counts', () => {
    const { fault, change, calls, count } = bench({ frame: scattered })
    change([[0, 8 * PAGE]], 'unmapped')
    expect([calls, count('revocations')]).toEqual([[], 0])
    fault(PAGE)
    change([[0, PAGE], [PAGE, PAGE], [2 * PAGE, PAGE]], 'unmapped')
    expect(calls).toEqual([['flush', [0, PAGE], [PAGE, PAGE], [2 * PAGE, PAGE]]])
    expect(count('revocations')).toBe(1)
    // Protected already: there is nothing to flush.
    fault(PAGE)
    change([[PAGE, PAGE]], 'writeProtected')
    change([[PAGE, PAGE]], 'writeProtected')
    expect([calls.length, count('revocations'), count('violations'), count('maps4K')]).toEqual([2, 2, 2, 2])
  })
  it('of part of a page is one of all of it', () => {
    const { fault, change, leaf } = bench({ frame: scattered })
    for (let page = 0; page < 5; page++) fault(page * PAGE)
    change([[PAGE + 0x800, PAGE]], 'unmapped')
    expect([0, 1, 2, 3, 4].map((page) => leaf(page * PAGE) !== undefined)).toEqual([true, false, false, true, true])
  })
  it('gives registers back', () => {
    const { fault, change, leaf, count } = bench({ frame: () => undefined, registerPage: (address) => (address < 0xc000_1000 ? 0xff_0000_3000 : undefined) })
    expect([fault(0xc000_0010), count('registerMaps'), count('tableFrames')]).toEqual([RESUME, 1, 4])
    expect(leaf(0xc000_0000)).toEqual([1, 0x3000, EPT_ENTRY.read | EPT_ENTRY.write])
    expect(fault(0xc000_1000)).toEqual({ next: 'mmio', address: 0xc000_1000 })
    change([[0xc000_0000, PAGE]], 'unmapped')
    expect(leaf(0xc000_0000)).toBe(undefined)
  })
})

describe('the accessed flag', () => {
  it('is taken once, and flushed where it was set', () => {
    const { fault, strategy, calls } = bench({ frame: scattered })
    expect(strategy.takeAccessed!(gpa(PAGE))).toBe(undefined)
    fault(PAGE)
    expect(calls).toEqual([])
    expect(strategy.takeAccessed!(gpa(PAGE))).toBe(true)
    expect(calls).toEqual([['flush', [PAGE, PAGE]]])
    expect(strategy.takeAccessed!(gpa(PAGE))).toBe(false)
    expect(calls).toHaveLength(1)
  })
})

describe('frames of tables', () => {
  it('come back: all but the root with a restore, which flushes all, and all at the end', () => {
    const { fault, strategy, host, before, leaf, calls, count } = bench()
    const free = host.freeFrames
    expect(before - free).toBe(1)
    for (const address of [0, 5 * MIB2, GIB4, 2 ** 39, 2 ** 47]) fault(address)
    expect(count('tableFrames')).toBe(before - host.freeFrames)
    strategy.restore(strategy.save())
    expect([host.freeFrames, leaf(0), leaf(2 ** 39), calls]).toEqual([free, undefined, undefined, [['flushAll']]])
    expect(() => strategy.restore({ type: 'paging.shadow', version: 1, data: {} })).toThrow('paging.ept')
    fault(0)
    expect(leaf(0)).toEqual([2, 0x4000_0000, ALL])
    strategy.dispose()
    expect(host.freeFrames).toBe(before)
  })
  it('are in no table after a split', () => {
    const { fault, change, host, tables } = bench()
    fault(0)
    // The frame behind the one of the new table is another's.
    const table = host.allocateFrame()!
    const next = host.allocateFrame()!
    host.freeFrame(table)
    change([[0, PAGE]], 'writeProtected')
    expect(tables.leaf(PAGE) * 4).toBe(table + 8)
    expect(host.words.subarray(next / 4, next / 4 + 1024).every((word) => word === 0)).toBe(true)
  })
})
