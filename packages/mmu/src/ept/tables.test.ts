import { gpa, RESUME, SecondStageAccess, EPT_ENTRY } from '@nonroot/contracts'
import type { MemoryRange, PagingPort } from '@nonroot/contracts'
import { createTestGuestMemory, createTestHostMemory, createTestMetrics } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import { EptPaging } from './strategy.ts'
import { EptTables } from './tables.ts'

const MIB2 = 0x20_0000

/** Guest frames of the first 2 MiB lie together and aligned in host memory, if touched in order. */
function bench(largePages?: boolean) {
  const host = createTestHostMemory(4096)
  while (host.allocateFrame()! < MIB2 - 4096) continue
  const memory = createTestGuestMemory({ hostMemory: host, ram: 4 * MIB2 })
  for (let at = 0; at < MIB2; at += 4096) memory.translate(at, 'write')
  const strategy = new EptPaging(
    { largePages },
    { hostMemory: host, guestFrames: memory, metrics: createTestMetrics() },
  )
  let root = 0
  const flushed: number[] = []
  strategy.attach({
    setIntercepts: () => {},
    setHardwareRoot: () => {},
    setSecondStageRoot: (given: number) => (root = given),
    flushGuestPhysical: (ranges: readonly MemoryRange[]) => flushed.push(...ranges.map(({ address }) => address)),
  } as unknown as PagingPort)
  const tables = new EptTables(host, root as never)
  const port = {} as PagingPort
  const entry = (address: number) => host.words[tables.leaf(address)]!
  return { host, memory, strategy, tables, port, flushed, entry }
}

describe('2 MiB leaves', () => {
  it('maps what lies together at once', () => {
    const { strategy, tables, port, entry, memory } = bench()
    expect(strategy.onSecondStageFault(port, gpa(0x5678), SecondStageAccess.read)).toBe(RESUME)
    expect(tables.leaf(0)).toBe(tables.leaf(MIB2 - 1))
    expect(tables.level).toBe(2)
    expect(entry(0) & EPT_ENTRY.large).toBeTruthy()
    expect(entry(0) & ~(MIB2 - 1)).toBe(memory.peek(0))
    // The next 2 MiB do not lie together.
    strategy.onSecondStageFault(port, gpa(MIB2 + 0x3000), SecondStageAccess.write)
    expect(tables.leaf(MIB2 + 0x3000)).toBeGreaterThan(0)
    expect(tables.level).toBe(1)
  })

  it('splits for the dirty log and keeps the other pages', () => {
    const { strategy, tables, port, entry, flushed } = bench()
    strategy.onSecondStageFault(port, gpa(0), SecondStageAccess.write)
    strategy.onMemoryChange([{ address: gpa(0x3000), length: 0x2000 }], 'writeProtected')
    expect(flushed).toEqual([0x3000])
    expect(tables.leaf(0x3000)).toBeGreaterThan(0)
    expect(tables.level).toBe(1)
    expect(entry(0x2000) & EPT_ENTRY.write).toBeTruthy()
    expect(entry(0x3000) & EPT_ENTRY.write).toBeFalsy()
    expect(entry(0x4000) & EPT_ENTRY.write).toBeFalsy()
    expect(entry(0x5000) & EPT_ENTRY.write).toBeTruthy()
    expect(entry(0x5000) & EPT_ENTRY.dirty).toBeTruthy()
  })

  it('is split by sampling, and dropped by losing a frame', () => {
    const { strategy, tables, port } = bench()
    strategy.onSecondStageFault(port, gpa(0), SecondStageAccess.read)
    expect(strategy.takeAccessed(gpa(0x1000))).toBe(true)
    expect(strategy.takeAccessed(gpa(0x1000))).toBe(false)
    expect(strategy.takeAccessed(gpa(0x2000))).toBe(true)
    strategy.onMemoryChange([{ address: gpa(0x1000), length: 0x1000 }], 'unmapped')
    expect(strategy.takeAccessed(gpa(0x1000))).toBe(undefined)
    expect(tables.leaf(0x2000)).toBeGreaterThan(0)
  })

  it('costs a flush for a whole list, and none for pages that no processor can have cached', () => {
    const { strategy, port, flushed, host, tables } = bench(false)
    const pages = [1, 2, 3].map((page) => gpa(page * 4096))
    for (const page of pages) strategy.onSecondStageFault(port, page, SecondStageAccess.read)
    strategy.onMemoryChange(
      pages.map((address) => ({ address, length: 4096 })),
      'writeProtected',
    )
    expect(flushed).toEqual([...pages])
    for (const page of pages) strategy.takeAccessed(page)
    flushed.length = 0
    // The processor uses the second page again.
    const used = tables.leaf(pages[1]!)
    host.words[used] = host.words[used]! | EPT_ENTRY.accessed
    for (const address of pages) strategy.onMemoryChange([{ address, length: 4096 }], 'unmapped')
    expect(flushed).toEqual([pages[1]])
    expect(pages.map((page) => tables.leaf(page))).toEqual([-1, -1, -1])
  })

  /** Guest pages that are mapped by 4 KiB; [start, end) in pages. 512 pages have one table; none is there for the third 2 MiB. */
  it.each<[string, number[], number, number]>([
    ['one page', [1, 2, 3], 2, 3],
    ['pages with holes between them', [1, 3, 4, 7, 9], 2, 9],
    ['the first page of a table', [511, 512, 513], 512, 513],
    ['over the end of a table', [510, 511, 512, 513], 511, 513],
    ['over a table that is not there', [510, 1023, 1536, 1537], 511, 1537],
    ['from the midst of a table that is not there', [1023, 1535 + 1, 1537], 1100, 1537],
    ['all', [0, 1, 511, 512, 1023, 1536, 2047], 0, 2048],
  ])('takes away %s, no more and no less', (_name, pages, start, end) => {
    for (const change of ['unmapped', 'writeProtected'] as const) {
      const { strategy, tables, port, entry } = bench(false)
      for (const page of pages) strategy.onSecondStageFault(port, gpa(page * 4096), SecondStageAccess.write)
      strategy.onMemoryChange([{ address: gpa(start * 4096), length: (end - start) * 4096 }], change)
      const writable = pages.filter((page) => tables.leaf(page * 4096) >= 0 && entry(page * 4096) & EPT_ENTRY.write)
      expect([change, writable]).toEqual([change, pages.filter((page) => page < start || page >= end)])
      const mapped = pages.filter((page) => tables.leaf(page * 4096) >= 0 && entry(page * 4096) & EPT_ENTRY.read)
      expect(mapped).toEqual(change === 'unmapped' ? writable : pages)
    }
  })
  it.each<[string, number, number]>([
    ['its first page', 0, 1],
    ['its last page', 511, 512],
    ['what is beyond it, too', 256, 1100],
    ['the whole', 0, 512],
  ])('a 2 MiB leaf loses the write permission of %s', (_name, start, end) => {
    const { strategy, tables, port, entry } = bench()
    strategy.onSecondStageFault(port, gpa(0), SecondStageAccess.write)
    strategy.onMemoryChange([{ address: gpa(start * 4096), length: (end - start) * 4096 }], 'writeProtected')
    for (const page of [0, 1, 255, 256, 510, 511]) {
      expect(tables.leaf(page * 4096)).toBeGreaterThan(0)
      expect([page, (entry(page * 4096) & EPT_ENTRY.write) !== 0]).toEqual([page, page < start || page >= end])
    }
  })

  it('what begins in the midst of a 2 MiB leaf is taken away behind it, too', () => {
    const { strategy, tables, port } = bench()
    for (const page of [0, 512, 600, 601]) strategy.onSecondStageFault(port, gpa(page * 4096), SecondStageAccess.write)
    strategy.onMemoryChange([{ address: gpa(256 * 4096), length: (601 - 256) * 4096 }], 'unmapped')
    expect([256, 511, 512, 600].map((page) => tables.leaf(page * 4096))).toEqual([-1, -1, -1, -1])
    expect(tables.leaf(601 * 4096)).toBeGreaterThan(0)
  })

  it('is off by option', () => {
    const { strategy, tables, port } = bench(false)
    strategy.onSecondStageFault(port, gpa(0), SecondStageAccess.read)
    tables.leaf(0)
    expect(tables.level).toBe(1)
  })
})

describe('registers of assigned devices', () => {
  it('are mapped page by page on the host bus, and taken back with nothing left above bit 31', () => {
    const { strategy, memory, tables, port, host, entry } = bench()
    const registers = new Map([[0xc000_0000, 0xff_0000_2000]])
    Object.assign(memory, { registerPage: (address: number) => registers.get(address - (address % 4096)) })
    expect(strategy.onSecondStageFault(port, gpa(0xc000_0010), SecondStageAccess.write)).toBe(RESUME)
    const word = tables.leaf(0xc000_0000)
    expect([entry(0xc000_0000) & ~0xfff, entry(0xc000_0000) & 7, host.words[word + 1]]).toEqual([0x2000, 3, 0xff])
    // Not the next page, and nothing is executed there.
    expect(strategy.onSecondStageFault(port, gpa(0xc000_1000), SecondStageAccess.read)).toMatchObject({ next: 'mmio' })
    expect(strategy.onSecondStageFault(port, gpa(0xc000_0000), SecondStageAccess.fetch)).toMatchObject({ next: 'mmio' })
    strategy.onMemoryChange([{ address: gpa(0xc000_0000), length: 4096 }], 'unmapped')
    expect([tables.leaf(0xc000_0000), host.words[word], host.words[word + 1]]).toEqual([-1, 0, 0])
  })
})
