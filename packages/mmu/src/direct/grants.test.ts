/** Mappings of grants in a guest's tables, judged with all counts; rules that an advisory of Xen's stands behind carry its number. */

import { describe, expect, it } from 'vitest'
import { A, D, P, RW, TestDomain, US } from './testing/domain.ts'

const GRANT = 1 << 30
const KERNEL = 1 << 20
const L1 = 3
/** Linear addresses whose entries are free: nothing is mapped at the first, an own page at the second. */
const [EMPTY, MAPPED] = [0x5000n, 0x0000n]
const WRITABLE = { isWritable: true, isUser: false, available: 0 }
const READ_ONLY = { ...WRITABLE, isWritable: false }

function start() {
  const domain = new TestDomain().withTables()
  const { tables, machine } = domain
  const frame = machine[8]!
  return {
    domain,
    tables,
    frame,
    map: (entry = WRITABLE, linear = EMPTY) => tables.mapGrant(0, { linear }, frame, entry),
    unmap: (isWritable = true, linear = EMPTY, of = frame) => tables.unmapGrant(0, { linear }, of, isWritable),
  }
}

type Start = ReturnType<typeof start>

describe('a mapping of a grant', () => {
  it.each([
    ['to write', WRITABLE, P | RW | US | A | D, GRANT | KERNEL, [6, 1, 2]],
    ['to read', READ_ONLY, P | US | A, GRANT | KERNEL, [0, 0, 2]],
    ['for users', { ...WRITABLE, isUser: true, available: 5 }, P | RW | US | A | D | (5 << 9), GRANT, [6, 1, 2]],
  ])('%s is an entry with a mark, and counted', (_what, entry, low, high, use) => {
    const { domain, map, unmap } = start()
    expect([map(entry), domain.peek(L1, 5), domain.use(8)]).toEqual(['ok', [domain.entry(8, low), high], use])
    expect([unmap(entry.isWritable), domain.peek(L1, 5), domain.use(8).slice(1), domain.faults()]).toEqual([
      ...['ok', [0, 0], [0, 1], []],
    ])
  })

  it('takes the place of what was mapped there', () => {
    const { domain, map } = start()
    expect([map(WRITABLE, MAPPED), domain.use(4)[2], domain.faults()]).toEqual(['ok', 1, []])
  })

  it('is changed by no other call', () => {
    const { domain, tables, map } = start()
    map()
    const before = domain.peek(L1, 5)
    expect([
      domain.write(L1, 5, 0),
      domain.write(L1, 5, domain.entry(9)),
      domain.write(L1, 5, before[0] & ~A, before[1] & ~GRANT),
      tables.writeLinear(0, EMPTY, 0, 0),
      map(),
    ]).toEqual(Array.from({ length: 5 }, () => 'invalid'))
    expect([domain.peek(L1, 5), domain.refused('grant'), domain.faults()]).toEqual([before, 5, []])
  })

  it('cannot be forged: no other entry has the mark', () => {
    const { domain, unmap } = start()
    expect(domain.write(L1, 5, domain.entry(8), GRANT)).toBe('invalid')
    domain.write(L1, 5, domain.entry(8))
    expect([unmap(), domain.faults()]).toEqual(['invalid', []])
    domain.poke(20, 0, domain.entry(8), GRANT)
    expect(domain.pin(1, 20)).toBe('invalid')
  })

  it('goes with its table, and its frame stays as long as it is held', () => {
    const { domain, map } = start()
    map()
    domain.hold(8)
    domain.write(2, 0, 0)
    expect([domain.use(8), domain.use(L1).slice(1), domain.faults()]).toEqual([[6, 1, 2], [0, 1], []])
  })

  it.each<[what: string, entry: (domain: TestDomain) => number]>([
    ['inside an entry', (domain) => domain.at(L1, 5) + 1],
    ['across two', (domain) => domain.at(L1, 5) + 4],
    ['in ordinary memory', (domain) => domain.at(9)],
    ['in a table above', (domain) => domain.at(2, 5)],
    ['in no frame of the domain', () => 0],
    ['nowhere', () => Number.MAX_SAFE_INTEGER],
  ])('XSA-227: is not made at an address %s', (_what, entry) => {
    const { domain, tables, frame } = start()
    const place = { entry: entry(domain) }
    expect([tables.mapGrant(0, place, frame, WRITABLE), tables.unmapGrant(0, place, frame, true)]).toEqual([
      ...['invalid', 'invalid'],
    ])
    expect([domain.use(8), domain.faults()]).toEqual([[0, 0, 1], []])
  })
  it('is made at the address of an entry', () => {
    const { domain, tables, frame } = start()
    const place = { entry: domain.at(L1, 5) }
    expect([tables.mapGrant(0, place, frame, WRITABLE), domain.faults()]).toEqual(['ok', []])
    expect([tables.unmapGrant(0, place, frame, true), domain.faults()]).toEqual(['ok', []])
  })

  it.each<[what: string, unmap: (all: Start) => string]>([
    ['where nothing is mapped', ({ unmap }) => unmap(true, 0x6000n)],
    ['where the guest itself mapped a page', ({ unmap }) => unmap(true, MAPPED)],
    ['of another frame', ({ unmap, domain }) => unmap(true, EMPTY, domain.machine[9])],
    ['made to write, as one to read', ({ unmap }) => unmap(false)],
    ['outside all tables', ({ unmap }) => unmap(true, 0x8000_0000_0000n)],
  ])('XSA-234: is not ended %s', (_what, end) => {
    const all = start()
    all.map()
    const before = all.domain.peek(L1, 5)
    expect([end(all), all.domain.peek(L1, 5), all.domain.faults()]).toEqual(['invalid', before, []])
  })

  it('does not make a table writable, and reads one', () => {
    const { domain, tables } = start()
    const linear = EMPTY
    expect([
      tables.mapGrant(0, { linear }, domain.machine[L1]!, WRITABLE),
      tables.mapGrant(0, { linear }, domain.machine[L1]!, READ_ONLY),
      domain.faults(),
    ]).toEqual(['busy', 'ok', []])
    expect([tables.hold(domain.machine[2]!), tables.hold(domain.machine[2]!, false)]).toEqual(['busy', 'ok'])
    expect(domain.use(2)).toEqual([2, 1, 3])
    tables.release(domain.machine[2]!, false)
    expect(domain.faults()).toEqual([])
  })

  it('leaves no translation behind', () => {
    const { domain, map, unmap } = start()
    map()
    const [before] = domain.flushes
    unmap()
    expect(domain.flushes[0]! - before!).toBe(1)
  })

  it('gives way to the entry of another address, with its references', () => {
    const { domain, tables, frame, map } = start()
    map()
    const before = domain.peek(L1, 0)
    expect(tables.unmapGrant(0, { linear: EMPTY }, frame, true, MAPPED)).toBe('ok')
    expect([domain.peek(L1, 5), domain.peek(L1, 0), domain.use(4), domain.use(8)[2], domain.faults()]).toEqual([
      ...[before, [0, 0], [6, 1, 2], 1, []],
    ])
  })
  it('gives way to no other mapping of a grant, and not to itself', () => {
    const { domain, tables, frame, map } = start()
    map()
    map(WRITABLE, 0x6000n)
    expect(tables.unmapGrant(0, { linear: EMPTY }, frame, true, 0x6000n)).toBe('invalid')
    expect([tables.unmapGrant(0, { linear: EMPTY }, frame, true, EMPTY), domain.faults()]).toEqual(['ok', []])
    expect(domain.peek(L1, 5)).toEqual([0, 0])
  })
})

describe('a frame that goes to another domain', () => {
  it('XSA-214: has no use any more, and no translation leads there', () => {
    const { domain, tables } = start()
    domain.write(L1, 5, domain.entry(8))
    expect(tables.steal(domain.machine[8]!)).toBe('invalid')
    domain.write(L1, 5, 0)
    const [before] = domain.flushes
    expect([tables.steal(domain.machine[8]!), domain.use(8), domain.flushes[0]! - before!]).toEqual([
      'ok',
      [0, 0, 1],
      1,
    ])
  })
  it.each<[what: string, frame: (domain: TestDomain) => number]>([
    ['a table', (domain) => domain.machine[L1]!],
    ['a held frame', (domain) => (domain.hold(9), domain.machine[9]!)],
    ['nobody’s', () => 0],
    ['none', () => 2 ** 40],
  ])('is not %s', (_what, frame) => {
    const { domain, tables } = start()
    expect([tables.steal(frame(domain)), domain.faults()]).toEqual(['invalid', []])
  })
})
