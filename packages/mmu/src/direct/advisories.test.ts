/** Rules that Xen's advisories tell of validation, tear-down and what devices may reach. Each is judged by counts made anew. */

import { FRAME_USE } from '@nonroot/contracts'
import { describe, expect, it } from 'vitest'
import { P, PSE, RW, TestDomain, US } from './testing/domain.ts'

describe('validation', () => {
  it.each([0, 1, 255, 511])('XSA-45, XSA-290: that ends at entry %i gives back what it took, and no more', (bad) => {
    const domain = new TestDomain()
    for (let index = 0; index < 512; index++) domain.poke(5, index, domain.entry(8 + (index % 8)))
    domain.poke(5, bad, domain.entry(9, P | RW | US | PSE))
    for (let time = 0; time < 2; time++) expect([domain.pin(1, 5), domain.faults()]).toEqual(['invalid', []])
    expect(domain.use(5)[1]).toBe(0)
    domain.poke(5, bad, 0)
    expect([domain.pin(1, 5), domain.faults(), domain.unpin(5), domain.faults()]).toEqual(['ok', [], 'ok', []])
  })

  it('XSA-310: that fails half way, again and again at every level, leaves each table below it with its own references', () => {
    const domain = new TestDomain()
    domain.poke(5, 0, domain.entry(9))
    expect(domain.pin(1, 5)).toBe('ok')
    for (const [level, table, below] of [
      [2, 6, 5],
      [3, 7, 6],
      [4, 8, 7],
    ] as const) {
      domain.poke(table, 0, domain.entry(below))
      domain.poke(table, 1, domain.entry(below, P | US | PSE))
      const before = domain.use(below)
      for (let time = 0; time < 3; time++) expect(domain.pin(level, table)).toBe('invalid')
      expect([domain.use(below), domain.faults()]).toEqual([before, []])
      domain.poke(table, 1, 0)
      expect(domain.pin(level, table)).toBe('ok')
    }
    for (const table of [8, 7, 6, 5]) expect([domain.unpin(table), domain.faults()]).toEqual(['ok', []])
    expect(domain.use(5)[1]).toBe(0)
  })

  it.each([0, 511])(
    'XSA-309: of a whole tree is one step: it is there when the call ends, or nothing of it is, with entry %i bad',
    (bad) => {
      const domain = new TestDomain()
      const tree = [5, 6, 7, 8] as const
      for (let level = 0; level < 3; level++) domain.poke(tree[level]!, 0, domain.entry(tree[level + 1]!))
      for (let index = 1; index < 511; index++) domain.poke(8, index, domain.entry(9 + (index % 8)))
      domain.poke(8, bad, domain.entry(5, P | US | PSE))
      const uses = (): number[] => tree.map((frame) => domain.use(frame)[1])
      expect([domain.pin(4, 5), uses(), domain.faults()]).toEqual(['invalid', [0, 0, 0, 0], []])
      domain.poke(8, bad, 0)
      expect([domain.pin(4, 5), uses(), domain.faults()]).toEqual(['ok', [1, 1, 1, 1], []])
      expect([domain.unpin(5), uses(), domain.faults()]).toEqual(['ok', [0, 0, 0, 0], []])
    },
  )

  it.each([
    { level: 2, through: 5 },
    { level: 3, through: 5 },
    { level: 3, through: 6 },
    { level: 4, through: 5 },
    { level: 4, through: 6 },
  ] as const)(
    'XSA-309: takes no table of level $level that is named again below itself, through $through',
    ({ level, through }) => {
      const domain = new TestDomain()
      domain.poke(5, 0, domain.entry(through, P | US))
      domain.poke(6, 0, domain.entry(5, P | US))
      expect([domain.pin(level, 5), domain.faults(), domain.use(5)[1], domain.use(6)[1]]).toEqual(['busy', [], 0, 0])
    },
  )

  it('XSA-167: knows no superpages, in whichever way they are asked for', () => {
    const domain = new TestDomain().withTables()
    for (const level of [1, 2] as const) {
      const machine = domain.at(level, 1)
      expect(domain.tables.writeEntry(0, machine, domain.entry(8, P | RW | US | PSE), 0)).toBe('invalid')
    }
    expect([domain.refused('flags'), domain.faults()]).toEqual([2, []])
  })
})

describe('a frame that devices reach', () => {
  it('XSA-288, XSA-291: is writable as long as they do: it becomes neither table nor descriptors, and a table is never theirs', () => {
    const domain = new TestDomain().withTables()
    expect([domain.hold(8), domain.use(8)[0]]).toEqual(['ok', FRAME_USE.writable])
    expect([1, 2, 3, 4].map((level) => domain.pin(level as 1, 8))).toEqual(['busy', 'busy', 'busy', 'busy'])
    expect(domain.tables.setDescriptorFrames(0, [domain.machine[8]!], 1)).toBe('busy')
    expect([0, 1, 2, 3].map((table) => domain.hold(table))).toEqual(['busy', 'busy', 'busy', 'busy'])
    domain.tables.release(domain.machine[8]!)
    domain.held.length = 0
    expect([domain.pin(1, 8), domain.hold(8), domain.faults()]).toEqual(['ok', 'busy', []])
  })
})

describe('translations', () => {
  it('XSA-408: go by what the frame was, not by what it becomes: each time it was writable, and no other', () => {
    const domain = new TestDomain({ vcpuCount: 2 })
    const flushes = (): number => domain.metrics.counter('useFlushes', '').value
    domain.hold(8)
    domain.tables.release(domain.machine[8]!)
    domain.held.length = 0
    const before = flushes()
    domain.pin(1, 8)
    expect(flushes() - before).toBe(1)
    domain.unpin(8)
    // It was a table last: nothing could write it meanwhile.
    domain.pin(2, 8)
    expect(flushes() - before).toBe(1)
    domain.unpin(8)
    domain.hold(8)
    domain.tables.release(domain.machine[8]!)
    domain.held.length = 0
    domain.tables.setDescriptorFrames(0, [domain.machine[8]!], 1)
    expect(flushes() - before).toBe(2)
    expect(domain.flushes.every((count) => count >= 2)).toBe(true)
  })
})
