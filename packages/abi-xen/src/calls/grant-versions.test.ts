/** Grant tables of both versions, as a guest fills and changes them; rules that an advisory of Xen's stands behind carry its number. */

import { describe, expect, it } from 'vitest'
import { pvBench, SELF } from '../testing/pv-bench.ts'

const GRANT_TABLE_OP = 20
const [MAP, UNMAP, SETUP, TRANSFER, COPY, REPLACE, SET_VERSION, STATUS_FRAMES, GET_VERSION, SWAP] = [
  0, 1, 2, 4, 5, 7, 8, 9, 10, 11,
]
const [ACCESS, TRANSITIVE, READING, WRITING, PART] = [1, 3, 8, 16, 256]
const [HOST, DEVICE, READ_ONLY] = [2, 1, 4]
const [GENERAL, BAD_DOMAIN, BAD_REFERENCE, BAD_HANDLE, BAD_COPY] = [-1, -2, -3, -4, -10]
const [ENOMEM, EBUSY, EINVAL, ERANGE] = [-12, -16, -22, -34]
const OWN = 1
const ARGUMENT = 0x800
const LIST = 0x1000
const FRAME = 5

function start({ frames = 1 } = {}) {
  const bench = pvBench()
  const { abi, bytes, memory, hostMemory, call } = bench
  const { grants } = abi.domain
  const table = grants.setup(frames)![0]! * 4096
  const { view } = hostMemory
  const operate = (number: number, write: () => void): number | 'again' => {
    bytes.fill(0, ARGUMENT, ARGUMENT + 64)
    write()
    return call(GRANT_TABLE_OP, number, ARGUMENT, 1)
  }
  const put = (at: number, flags: number, domain: number): void => {
    view.setUint16(at, flags, true)
    view.setUint16(at + 2, domain, true)
  }
  const copyArgument = (at: number, from: number, to: number, offsets: readonly number[], length: number): void => {
    bytes.fill(0, at, at + 40)
    for (const [side, what, offset] of [
      [0, from, offsets[0]],
      [16, to, offsets[1]],
    ] as const) {
      memory.setBigUint64(at + side, BigInt(what), true)
      memory.setUint16(at + side + 8, SELF, true)
      memory.setUint16(at + side + 10, offset!, true)
    }
    memory.setUint16(at + 32, length, true)
    memory.setUint16(at + 34, 3, true)
  }
  return {
    ...bench,
    ...{ grants, table, copyArgument },
    setVersion: (version: number) => operate(SET_VERSION, () => memory.setUint32(ARGUMENT, version, true)),
    version: () => [
      operate(GET_VERSION, () => memory.setUint16(ARGUMENT, SELF, true)),
      memory.getUint32(ARGUMENT + 4, true),
    ],
    statuses(count: number, domain = SELF) {
      memory.setBigUint64(LIST, 0n, true)
      operate(STATUS_FRAMES, () => {
        memory.setUint32(ARGUMENT, count, true)
        memory.setUint16(ARGUMENT + 4, domain, true)
        memory.setBigUint64(ARGUMENT + 8, BigInt(LIST), true)
      })
      return [memory.getInt16(ARGUMENT + 6, true), Number(memory.getBigUint64(LIST, true))]
    },
    /** Entries of the versions. */
    grant1(reference: number, { flags = ACCESS, domain = OWN, frame = FRAME } = {}): void {
      put(table + reference * 8, flags, domain)
      view.setUint32(table + reference * 8 + 4, frame, true)
    },
    grant2(reference: number, { flags = ACCESS, domain = OWN, frame = BigInt(FRAME), part = [0, 0] } = {}): void {
      const at = table + reference * 16
      put(at, flags, domain)
      view.setUint16(at + 4, part[0]!, true)
      view.setUint16(at + 6, part[1]!, true)
      view.setBigUint64(at + 8, frame, true)
    },
    entry: (reference: number) => grants.entry(reference)!,
    flags: (reference: number) => view.getUint16(table + reference * 16, true),
    mark: (reference: number) => view.getUint16(grants.statusFrames(1)![0]! * 4096 + reference * 2, true),
    map(reference: number, flags = HOST) {
      operate(MAP, () => {
        memory.setBigUint64(ARGUMENT, 0x7000n, true)
        memory.setUint32(ARGUMENT + 8, flags, true)
        memory.setUint32(ARGUMENT + 12, reference, true)
        memory.setUint16(ARGUMENT + 16, SELF, true)
      })
      return { status: memory.getInt16(ARGUMENT + 18, true), handle: memory.getUint32(ARGUMENT + 20, true) }
    },
    unmap(handle: number): number {
      operate(UNMAP, () => {
        memory.setBigUint64(ARGUMENT, 0x7000n, true)
        memory.setUint32(ARGUMENT + 16, handle, true)
      })
      return memory.getInt16(ARGUMENT + 20, true)
    },
    copy({ from = 9, to = 10, offsets = [0, 0], length = 64 } = {}): number {
      operate(COPY, () => copyArgument(ARGUMENT, from, to, offsets, length))
      return memory.getInt16(ARGUMENT + 36, true)
    },
  }
}

describe('the version', () => {
  it('is 1, then what was set; reserved entries stay, all others go', () => {
    const { version, setVersion, grant1, entry, grants } = start()
    grant1(1, { domain: 0, frame: 77 })
    grant1(9)
    expect([version(), setVersion(2), version()]).toEqual([[0, 1], 0, [0, 2]])
    expect([entry(1), entry(9).flags]).toEqual([{ flags: ACCESS, domain: 0, frame: 77, start: 0, length: 4096 }, 0])
    expect([setVersion(1), version(), entry(1).frame, grants.frameCount]).toEqual([0, [0, 1], 77, 1])
  })
  it.each([0, 3, 0xffff_ffff])('is not set to %i', (version) => {
    const { setVersion, version: now } = start()
    expect([setVersion(version), now()]).toEqual([EINVAL, [0, 1]])
  })
  it('does not change under an entry in use, unless the toolstack gave it', () => {
    const { abi, setVersion, version, grant1, map, unmap, mark, entry } = start()
    grant1(9)
    const { handle } = map(9)
    expect([setVersion(2), version(), entry(9).flags]).toEqual([EBUSY, [0, 1], ACCESS | READING | WRITING])
    expect([unmap(handle), setVersion(1)]).toEqual([0, 0])
    grant1(1, { domain: 0 })
    abi.domain.grantUses.begin(1, 0, true)
    expect([setVersion(2), mark(1)]).toEqual([0, READING | WRITING])
    abi.domain.grantUses.end(1, true)
    expect([mark(1), setVersion(1), entry(1).flags]).toEqual([0, 0, ACCESS])
  })
  it.each([TRANSITIVE, ACCESS | PART])(
    'does not become 1 where a reserved entry is one of 2 alone: flags %i',
    (flags) => {
      const { setVersion, version, grant2, flags: of } = start()
      setVersion(2)
      grant2(2, { flags })
      expect([setVersion(1), version(), of(2)]).toEqual([ERANGE, [0, 2], flags])
    },
  )
  it('stays where the host has no frame for marks', () => {
    const { setVersion, version, hostMemory, grant1, entry } = start()
    grant1(9)
    while (hostMemory.allocateFrame() !== undefined);
    expect([setVersion(2), version(), entry(9).flags]).toEqual([ENOMEM, [0, 1], ACCESS])
  })
  it('of another domain is nobody’s', () => {
    const { call, memory, bytes } = start()
    bytes.fill(0, ARGUMENT, ARGUMENT + 8)
    memory.setUint16(ARGUMENT, 3, true)
    expect(call(GRANT_TABLE_OP, GET_VERSION, ARGUMENT, 1)).toBe(-3)
  })
})

describe('an entry of version 2', () => {
  it('keeps its flags while it is in use: marks are apart', () => {
    const { setVersion, grant2, map, unmap, flags, mark, held } = start()
    setVersion(2)
    grant2(9)
    const [writer, reader] = [map(9), map(9, HOST | READ_ONLY)]
    expect([writer.status, reader.status, flags(9), mark(9), held()]).toEqual([0, 0, ACCESS, READING | WRITING, 2])
    expect([unmap(writer.handle), mark(9), unmap(reader.handle), mark(9), held()]).toEqual([0, READING, 0, 0, 0])
  })
  it.each<[bigint, number]>([
    [(1n << 32n) | 5n, 2 ** 32 + 5],
    [(1n << 64n) - 1n, Number.MAX_SAFE_INTEGER],
  ])('names frame %i by all its bits', (frame, asked) => {
    const { setVersion, grant2, map, asked: calls } = start()
    setVersion(2)
    grant2(9, { frame })
    map(9, DEVICE)
    expect(calls).toEqual([['hold', asked, true]])
  })
  it('of a part of a page is copied from and to inside it, and never mapped', () => {
    const { setVersion, grant2, copy, map, held, page, mark } = start()
    setVersion(2)
    grant2(9, { flags: ACCESS | PART, frame: 5n, part: [100, 50] })
    grant2(10, { frame: 6n })
    page(5).fill(7)
    expect(copy({ offsets: [100, 0], length: 50 })).toBe(0)
    expect([page(6)[49], page(6)[50]]).toEqual([7, 0])
    for (const [from, length] of [
      [99, 50],
      [100, 51],
      [150, 1],
      [0, 4096],
    ] as const)
      expect(copy({ offsets: [from, 0], length })).toBe(BAD_COPY)
    expect(copy({ from: 10, to: 9, offsets: [0, 149], length: 2 })).toBe(BAD_COPY)
    expect([map(9).status, held(), mark(9), mark(10)]).toEqual([GENERAL, 0, 0, 0])
  })
  it('XSA-500: is the part that it was when its use began', () => {
    const { abi, setVersion, grant2 } = start()
    const { grantUses } = abi.domain
    setVersion(2)
    grant2(9, { flags: ACCESS | PART, part: [100, 50] })
    grantUses.begin(9, OWN, false, true)
    grant2(9, { flags: ACCESS, part: [0, 0] })
    grantUses.begin(9, OWN, false, true)
    expect([grantUses.covers(9, 100, 50), grantUses.covers(9, 0, 4096)]).toEqual([true, false])
  })
  it('XSA-226: of another entry ends there, however entries name each other', () => {
    const { setVersion, grant2, copy, map, held, mark } = start()
    setVersion(2)
    for (const [reference, other] of [
      [9, 9n],
      [10, 11n],
      [11, 10n],
    ] as const)
      grant2(reference, { flags: TRANSITIVE, frame: other, part: [OWN, 0] })
    expect([copy({ from: 9 }), copy({ from: 10, to: 11 }), map(10).status]).toEqual([GENERAL, GENERAL, GENERAL])
    expect([held(), mark(9), mark(10), mark(11)]).toEqual([0, 0, 0, 0])
  })
  it('changes places with another one, whole', () => {
    const { setVersion, grant2, entry, call, memory, bytes } = start()
    setVersion(2)
    grant2(9, { flags: ACCESS | PART, frame: 1n << 33n, part: [8, 16] })
    grant2(300 - 50, { frame: 6n })
    bytes.fill(0, ARGUMENT, ARGUMENT + 12)
    memory.setUint32(ARGUMENT, 9, true)
    memory.setUint32(ARGUMENT + 4, 250, true)
    expect([call(GRANT_TABLE_OP, SWAP, ARGUMENT, 1), memory.getInt16(ARGUMENT + 8, true)]).toEqual([0, 0])
    expect([entry(9).frame, entry(250)]).toEqual([
      6,
      { flags: ACCESS | PART, domain: OWN, frame: 2 ** 33, start: 8, length: 16 },
    ])
  })
  it('is one of 256 of a frame', () => {
    const { setVersion, grants } = start()
    expect([grants.entry(511) === undefined, grants.entry(512)]).toEqual([false, undefined])
    setVersion(2)
    expect([grants.entry(255) === undefined, grants.entry(256)]).toEqual([false, undefined])
  })
})

describe('frames of marks', () => {
  it('XSA-382: are given by their number, one for eight of the table, and no more than there are', () => {
    const { setVersion, statuses, memory } = start({ frames: 9 })
    expect(statuses(0)).toEqual([0, 0])
    expect(statuses(1)).toEqual([GENERAL, 0])
    setVersion(2)
    for (const count of [3, 9, 64, 0xffff_ffff]) expect(statuses(count)).toEqual([GENERAL, 0])
    expect(statuses(2)).toEqual([0, expect.any(Number)])
    expect(memory.getBigUint64(LIST + 8, true)).toBeGreaterThan(0n)
    expect(statuses(1, 3)).toEqual([BAD_DOMAIN, 0])
  })
  it('grow with the table', () => {
    const { setVersion, statuses, call, memory, bytes } = start()
    setVersion(2)
    expect(statuses(2)[0]).toBe(GENERAL)
    bytes.fill(0, ARGUMENT, ARGUMENT + 24)
    memory.setUint16(ARGUMENT, SELF, true)
    memory.setUint32(ARGUMENT + 4, 9, true)
    memory.setBigUint64(ARGUMENT + 16, BigInt(LIST), true)
    expect([call(GRANT_TABLE_OP, SETUP, ARGUMENT, 1), statuses(2)[0]]).toEqual([0, 0])
  })
  it('XSA-255, XSA-384, XSA-486: are the domain’s to its end: it may have them mapped when the version changes', () => {
    const { setVersion, statuses, hostMemory, abi, grant2, map, mark } = start()
    setVersion(2)
    const [, first] = statuses(1)
    const free = hostMemory.freeFrames
    grant2(9)
    map(9)
    expect(mark(9)).not.toBe(0)
    abi.domain.grantUses.reset()
    for (let time = 0; time < 3; time++) {
      expect([setVersion(1), statuses(1), hostMemory.freeFrames]).toEqual([0, [GENERAL, 0], free])
      expect([setVersion(2), statuses(1), mark(9)]).toEqual([0, [0, first], 0])
    }
    abi.domain.grants.dispose()
    expect(hostMemory.freeFrames).toBe(free + 2)
  })
})

describe('operations', () => {
  it('XSA-134: on a table that was never set up find no entry, and touch nothing', () => {
    const { memory, bytes, call, asked, abi } = pvBench()
    const status = (number: number, at: number): number => {
      bytes.fill(0, ARGUMENT, ARGUMENT + 64)
      for (const self of [8, 16, 24]) memory.setUint16(ARGUMENT + self, SELF, true)
      if (number === MAP) memory.setUint32(ARGUMENT + 8, HOST, true)
      if (number === COPY) memory.setUint16(ARGUMENT + 34, 3, true)
      expect(call(GRANT_TABLE_OP, number, ARGUMENT, 1)).toBe(0)
      return memory.getInt16(ARGUMENT + at, true)
    }
    const all = (): number[] =>
      [
        [MAP, 18] as const,
        [UNMAP, 20] as const,
        [TRANSFER, 16] as const,
        [COPY, 36] as const,
        [REPLACE, 20] as const,
        [SWAP, 8] as const,
      ].map(([number, at]) => status(number, at))
    const none = [BAD_REFERENCE, BAD_HANDLE, BAD_REFERENCE, BAD_REFERENCE, BAD_HANDLE, BAD_REFERENCE]
    expect([all(), asked]).toEqual([none, []])
    expect(abi.domain.grants.setVersion(2)).toBeUndefined()
    expect([all(), asked]).toEqual([none, []])
  })
  it('XSA-318: a list of copies that is continued ends with 0, and each copy has its own status', () => {
    const { grant1, copyArgument, call, registers, memory } = start()
    grant1(9)
    grant1(10, { frame: 6 })
    const total = 70
    const isBad = (n: number): boolean => n === 3 || n === 63 || n === 64 || n === 69
    for (let n = 0; n < total; n++) copyArgument(LIST + n * 40, isBad(n) ? 11 : 9, 10, [0, 0], 8)
    expect(call(GRANT_TABLE_OP, COPY, LIST, total)).toBe('again')
    expect(call(GRANT_TABLE_OP, registers.rdi, registers.rsi, registers.rdx)).toBe(0)
    const statuses = Array.from({ length: total }, (_, n) => memory.getInt16(LIST + n * 40 + 36, true))
    expect(statuses).toEqual(Array.from({ length: total }, (_, n) => (isBad(n) ? GENERAL : 0)))
  })
  it('XSA-380, XSA-394: a frame under many entries is held once for each, in whatever order they end', () => {
    const { grant1, map, unmap, held, entry, abi } = start()
    const references = Array.from({ length: 400 }, (_, n) => 8 + n)
    const handles = references.map((reference) => {
      grant1(reference)
      return map(reference).handle
    })
    expect(held()).toBe(400)
    // Every other one, then the rest from the end.
    const order = [...references.keys()].filter((n) => n % 2 === 0)
    order.push(...[...references.keys()].filter((n) => n % 2 === 1).reverse())
    order.forEach((n, ended) => {
      expect([unmap(handles[n]!), held(), entry(references[n]!).flags]).toEqual([0, 399 - ended, ACCESS])
    })
    expect([abi.domain.grantUses.count, abi.domain.mappings.count]).toEqual([0, 0])
  })
})
