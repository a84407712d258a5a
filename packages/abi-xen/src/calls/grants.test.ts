/** Grants, by their entries' flags and what the guest gets back; rules that an advisory of Xen's stands behind carry its number. */

import { describe, expect, it } from 'vitest'
import { MOST_MAPPINGS } from '../grants/mappings.ts'
import { pvBench, SELF } from '../testing/pv-bench.ts'

const GRANT_TABLE_OP = 20
const [MAP, UNMAP, TRANSFER, COPY, REPLACE, SWAP] = [0, 1, 4, 5, 7, 11]
const [DEVICE, HOST, READ_ONLY, BY_ENTRY] = [1, 2, 4, 16]
const [ACCESS, TRANSFERS, ENTRY_READ_ONLY, READING, WRITING] = [1, 2, 4, 8, 16]
const [GENERAL, BAD_DOMAIN, BAD_REFERENCE, BAD_HANDLE, BAD_ADDRESS, BAD_DEVICE_ADDRESS] = [-1, -2, -3, -4, -5, -6]
const [DENIED, BAD_PAGE, BAD_COPY, AGAIN] = [-8, -9, -10, -12]
const OWN = 1
const ARGUMENT = 0x800
const FRAME = 5

function start() {
  const bench = pvBench()
  const { abi, memory, hostMemory } = bench
  const table = abi.domain.grants.setup(1)![0]! * 4096
  const operate = (number: number, write: () => void): number | 'again' => {
    bench.bytes.fill(0, ARGUMENT, ARGUMENT + 64)
    write()
    return bench.call(GRANT_TABLE_OP, number, ARGUMENT, 1)
  }
  const grant = (reference: number, { flags = ACCESS, domain = OWN, frame = FRAME } = {}): void => {
    hostMemory.view.setUint16(table + reference * 8, flags, true)
    hostMemory.view.setUint16(table + reference * 8 + 2, domain, true)
    hostMemory.view.setUint32(table + reference * 8 + 4, frame, true)
  }
  return {
    ...bench,
    grant,
    flags: (reference: number) => hostMemory.view.getUint16(table + reference * 8, true),
    frame: (reference: number) => hostMemory.view.getUint32(table + reference * 8 + 4, true),
    names: () => bench.asked.map(([name]) => name),
    map(reference: number, { flags = HOST, domain = SELF, address = 0x7000n } = {}) {
      operate(MAP, () => {
        memory.setBigUint64(ARGUMENT, address, true)
        memory.setUint32(ARGUMENT + 8, flags, true)
        memory.setUint32(ARGUMENT + 12, reference, true)
        memory.setUint16(ARGUMENT + 16, domain, true)
      })
      const status = memory.getInt16(ARGUMENT + 18, true)
      return { status, handle: memory.getUint32(ARGUMENT + 20, true), device: memory.getBigUint64(ARGUMENT + 24, true) }
    },
    unmap(handle: number, { host = 0x7000n, device = 0n, number = UNMAP } = {}): number {
      operate(number, () => {
        memory.setBigUint64(ARGUMENT, host, true)
        memory.setBigUint64(ARGUMENT + 8, device, true)
        memory.setUint32(ARGUMENT + 16, handle, true)
      })
      return memory.getInt16(ARGUMENT + 20, true)
    },
    /** By reference where `flags` says so, else by frame. */
    copy({ from = 1, to = 2, domains = [SELF, SELF], offsets = [0, 0], length = 4096, flags = 3 } = {}): number {
      operate(COPY, () => {
        for (const [at, what, n] of [
          [0, from, 0],
          [16, to, 1],
        ] as const) {
          memory.setBigUint64(ARGUMENT + at, BigInt(what), true)
          memory.setUint16(ARGUMENT + at + 8, domains[n]!, true)
          memory.setUint16(ARGUMENT + at + 10, offsets[n]!, true)
        }
        memory.setUint16(ARGUMENT + 32, length, true)
        memory.setUint16(ARGUMENT + 34, flags, true)
      })
      return memory.getInt16(ARGUMENT + 36, true)
    },
    transfer(frame: number, reference: number, domain = SELF): number {
      operate(TRANSFER, () => {
        memory.setBigUint64(ARGUMENT, BigInt(frame), true)
        memory.setUint16(ARGUMENT + 8, domain, true)
        memory.setUint32(ARGUMENT + 12, reference, true)
      })
      return memory.getInt16(ARGUMENT + 16, true)
    },
    swap(one: number, other: number): number {
      operate(SWAP, () => {
        memory.setUint32(ARGUMENT, one, true)
        memory.setUint32(ARGUMENT + 4, other, true)
      })
      return memory.getInt16(ARGUMENT + 8, true)
    },
  }
}

describe('a mapping of a grant', () => {
  it.each([
    { what: 'to write', flags: HOST, isWritable: true, marks: ACCESS | READING | WRITING },
    { what: 'to read', flags: HOST | READ_ONLY, isWritable: false, marks: ACCESS | READING },
  ])('$what is made, marked in the entry, and ended by its handle', ({ flags, isWritable, marks }) => {
    const { grant, map, unmap, asked, held, flags: of } = start()
    grant(3)
    const { status, handle, device } = map(3, { flags })
    expect([status, device, of(3), held()]).toEqual([0, BigInt(FRAME * 4096), marks, 1])
    const entry = { isWritable, isUser: false, available: 0 }
    expect(asked).toEqual([
      ['hold', FRAME, isWritable],
      ['mapGrant', 0, { linear: 0x7000n }, FRAME, entry],
    ])
    expect([unmap(handle), of(3), held()]).toEqual([0, ACCESS, 0])
    expect(asked.at(-1)).toEqual(['unmapGrant', 0, { linear: 0x7000n }, FRAME, isWritable, undefined])
    expect(unmap(handle)).toBe(BAD_HANDLE)
  })

  it('goes to an entry by its machine address, for user programs, with bits of the guest', () => {
    const { grant, map, asked } = start()
    grant(3)
    map(3, { flags: HOST | BY_ENTRY | 8 | (5 << 16), address: 0x5008n })
    expect(asked.at(-1)).toEqual([
      'mapGrant',
      0,
      { entry: 0x5008 },
      FRAME,
      { isWritable: true, isUser: true, available: 5 },
    ])
  })

  it('XSA-224: no processor gets one that was not asked for, and addresses of 0 end none', () => {
    const { grant, map, unmap, names, held, flags: of } = start()
    grant(3)
    expect(map(3, { flags: READ_ONLY }).status).toBe(BAD_REFERENCE)
    const { status, handle } = map(3, { flags: DEVICE })
    expect([status, names().includes('mapGrant')]).toEqual([0, false])
    expect([unmap(handle, { host: 0x7000n }), unmap(handle, { host: 0n }), held()]).toEqual([0, 0, 1])
    expect([unmap(handle, { host: 0n, device: BigInt((FRAME + 1) * 4096) }), held()]).toEqual([BAD_DEVICE_ADDRESS, 1])
    expect([unmap(handle, { host: 0n, device: BigInt(FRAME * 4096) }), held(), of(3)]).toEqual([0, 0, ACCESS])
    expect(names().includes('unmapGrant')).toBe(false)
  })

  it('XSA-224: is whole or not there: a table that refuses it leaves no use, no mark and no handle', () => {
    const { grant, map, answers, held, abi, flags: of } = start()
    grant(3)
    answers.mapGrant = ['busy']
    expect([map(3).status, held(), of(3), abi.domain.mappings.count]).toEqual([BAD_ADDRESS, 0, ACCESS, 0])
    answers.hold = ['busy']
    expect([map(3).status, of(3), abi.domain.grantUses.count]).toEqual([GENERAL, ACCESS, 0])
  })

  it('for processor and device ends when both have', () => {
    const { grant, map, unmap, held, flags: of } = start()
    grant(3)
    const { handle } = map(3, { flags: HOST | DEVICE })
    expect([unmap(handle), held(), of(3)]).toEqual([0, 1, ACCESS | READING | WRITING])
    expect([unmap(handle, { host: 0n, device: BigInt(FRAME * 4096) }), held(), of(3)]).toEqual([0, 0, ACCESS])
  })

  it('XSA-234: is still there if its entry is not as it was made', () => {
    const { grant, map, unmap, answers, held, flags: of } = start()
    grant(3)
    const { handle } = map(3)
    answers.unmapGrant = ['invalid']
    expect([unmap(handle), held(), of(3)]).toEqual([GENERAL, 1, ACCESS | READING | WRITING])
    expect(unmap(handle)).toBe(0)
  })

  it('XSA-218, XSA-236: is marked until the last one of its kind ends, with its reference', () => {
    const { grant, map, unmap, held, flags: of } = start()
    grant(3)
    const [reader, writer, second] = [HOST | READ_ONLY, HOST, HOST].map((flags) => map(3, { flags }).handle) as [
      number,
      number,
      number,
    ]
    const seen = [writer, second, reader].map((handle) => [unmap(handle), of(3), held()])
    expect(seen).toEqual([
      [0, ACCESS | READING | WRITING, 2],
      [0, ACCESS | READING, 1],
      [0, ACCESS, 0],
    ])
  })

  it('has the frame of its first use, whatever the entry names later', () => {
    const { grant, map, asked } = start()
    grant(3)
    map(3, { flags: HOST | READ_ONLY })
    grant(3, { flags: ACCESS | READING, frame: 6 })
    const second = map(3, { flags: HOST | READ_ONLY })
    expect([second.device, asked.at(-1)![3]]).toEqual([BigInt(FRAME * 4096), FRAME])
  })

  it.each<[what: string, entry: object | undefined, map: object, status: number]>([
    ['an entry without access', { flags: 0 }, {}, GENERAL],
    ['an entry that accepts a transfer', { flags: TRANSFERS }, {}, GENERAL],
    ['an entry of version 2', { flags: 3 }, {}, GENERAL],
    ['an entry for another domain', { domain: 0 }, {}, GENERAL],
    ['writing what may be read', { flags: ACCESS | ENTRY_READ_ONLY }, {}, GENERAL],
    ['XSA-232: a domain that is none', {}, { domain: 0x7ff1 }, BAD_DOMAIN],
    ['XSA-232: the hypervisor', {}, { domain: 0x7ff2 }, BAD_DOMAIN],
    ['another domain', {}, { domain: 0 }, BAD_DOMAIN],
  ])('XSA-295, XSA-316: is refused, below 0, for %s', (_what, entry, how, status) => {
    const { grant, map, held, flags: of } = start()
    grant(3, entry)
    const before = of(3)
    expect([map(3, how).status, held(), of(3)]).toEqual([status, 0, before])
  })
  it.each([512, 0xffff_ffff])('is refused for entry %i, beyond the table', (reference) => {
    expect(start().map(reference).status).toBe(BAD_REFERENCE)
  })
  it('of an entry that may be read is made to read', () => {
    const { grant, map } = start()
    grant(3, { flags: ACCESS | ENTRY_READ_ONLY })
    expect([map(3, { flags: HOST | READ_ONLY }).status, map(3).status]).toEqual([0, GENERAL])
  })
  it('XSA-26: is one of 255 of an entry, so that no count overflows', () => {
    const { grant, map } = start()
    grant(3)
    const statuses = Array.from({ length: 256 }, () => map(3, { flags: HOST | READ_ONLY }).status)
    expect([statuses.indexOf(GENERAL), statuses.filter((status) => status === 0)]).toEqual([255, expect.any(Array)])
  })
  it('is refused where a domain has as many as it may', () => {
    const { grant, map, abi } = start()
    grant(3)
    const mapping = { reference: 4, frame: 1, isWritable: true, isEntry: false, kinds: HOST }
    for (let n = 0; n < MOST_MAPPINGS; n++) abi.domain.mappings.add({ ...mapping })
    expect(map(3).status).toBe(-7)
  })
  it('gives way to the entry of another address, if it was made by a linear one', () => {
    const { grant, map, unmap, asked } = start()
    grant(3)
    const replace = (handle: number): number => unmap(handle, { device: 0x9000n, number: REPLACE })
    expect(replace(map(3, { flags: HOST | BY_ENTRY }).handle)).toBe(GENERAL)
    expect(replace(map(3).handle)).toBe(0)
    expect(asked.at(-1)).toEqual(['unmapGrant', 0, { linear: 0x7000n }, FRAME, true, 0x9000n])
  })
})

describe('a copy', () => {
  it('goes from grant to grant, and marks neither for longer', () => {
    const { grant, copy, page, held, flags: of } = start()
    grant(1, { frame: 5 })
    grant(2, { frame: 6 })
    page(5).fill(7)
    expect(copy({ offsets: [96, 4000], length: 96 })).toBe(0)
    expect([page(6)[3999], page(6)[4000], page(6)[4095]]).toEqual([0, 7, 7])
    expect([of(1), of(2), held()]).toEqual([ACCESS, ACCESS, 0])
  })
  it('goes from frame to frame of the domain', () => {
    const { copy, page, asked } = start()
    page(3).fill(9)
    expect([copy({ from: 3, to: 4, flags: 0 }), page(4)[0], page(4)[4095]]).toEqual([0, 9, 9])
    expect(asked).toEqual([
      ['hold', 3, false],
      ['hold', 4, true],
    ])
  })
  it('XSA-230: leaves the marks of a mapping that is still there', () => {
    const { grant, map, copy, flags: of } = start()
    grant(1)
    grant(2)
    map(2)
    expect([copy(), of(2), of(1)]).toEqual([0, ACCESS | READING | WRITING, ACCESS])
  })
  it('XSA-500: reads the frame that is in use, not the one that the entry names now', () => {
    const { grant, map, copy, page, flags: of } = start()
    grant(1, { frame: 5 })
    grant(2, { frame: 7 })
    map(1, { flags: HOST | READ_ONLY })
    grant(1, { flags: of(1), frame: 6 })
    page(5).fill(5)
    page(6).fill(6)
    expect([copy(), page(7)[0]]).toEqual([0, 5])
  })
  it.each<[what: string, how: object, status: number]>([
    ['beyond the end of the source', { offsets: [4000, 0], length: 97 }, BAD_COPY],
    ['beyond the end of the target', { offsets: [0, 1], length: 4096 }, BAD_COPY],
    ['of a frame of another domain', { flags: 0, domains: [0, SELF] }, DENIED],
    ['to a frame by the own number', { flags: 0, domains: [SELF, OWN] }, DENIED],
    ['of a grant of another domain', { domains: [0, SELF] }, BAD_DOMAIN],
    ['to a grant that may be read', { to: 4 }, GENERAL],
    ['of no grant', { from: 5 }, GENERAL],
    ['beyond the table', { from: 600 }, BAD_REFERENCE],
  ])('is refused %s, and holds nothing', (_what, how, status) => {
    const { grant, copy, page, held, flags: of } = start()
    grant(1)
    grant(2, { frame: 6 })
    grant(4, { flags: ACCESS | ENTRY_READ_ONLY })
    page(5).fill(7)
    expect([copy(how), held(), of(1), of(2), page(6)[0]]).toEqual([status, 0, ACCESS, ACCESS, 0])
  })
  it('is refused for a frame that may not be written, and lets go of the source', () => {
    const { copy, answers, held } = start()
    answers.hold = ['ok', 'busy']
    expect([copy({ flags: 0 }), held()]).toEqual([BAD_PAGE, 0])
  })
})

describe('a transfer', () => {
  it('XSA-214, XSA-284: puts the frame that was taken from all tables into the entry', () => {
    const { grant, transfer, asked, frame, flags: of } = start()
    grant(3, { flags: TRANSFERS, frame: 0 })
    expect([transfer(9, 3), asked, frame(3), of(3)]).toEqual([0, [['steal', 9]], 9, TRANSFERS | 4 | 8])
    // One frame for an entry.
    expect([transfer(8, 3), frame(3)]).toEqual([BAD_REFERENCE, 9])
  })
  it.each<[what: string, entry: object, domain: number, status: number]>([
    ['an entry that accepts none', { flags: ACCESS }, SELF, BAD_REFERENCE],
    ['an entry for another domain', { flags: TRANSFERS, domain: 0 }, SELF, BAD_REFERENCE],
    ['another domain', { flags: TRANSFERS }, 0, BAD_DOMAIN],
  ])('is refused to %s, and the frame stays', (_what, entry, domain, status) => {
    const { grant, transfer, asked } = start()
    grant(3, entry)
    expect([transfer(9, 3, domain), asked]).toEqual([status, []])
  })
  it('is refused of a frame in use, and the entry waits for another', () => {
    const { grant, transfer, answers, flags: of } = start()
    grant(3, { flags: TRANSFERS })
    answers.steal = ['invalid']
    expect([transfer(9, 3), of(3), transfer(9, 3)]).toEqual([BAD_PAGE, TRANSFERS, 0])
  })
})

describe('entries', () => {
  it('change places, unless one is in use', () => {
    const { grant, swap, map, unmap, frame } = start()
    grant(1, { frame: 5 })
    grant(2, { frame: 6 })
    expect([swap(1, 2), frame(1), frame(2), swap(1, 512)]).toEqual([0, 6, 5, BAD_REFERENCE])
    const { handle } = map(1)
    expect([swap(1, 2), swap(2, 1), unmap(handle), swap(2, 1)]).toEqual([AGAIN, AGAIN, 0, 0])
  })
  it('are operated on one after the other, each with its own status, and after 64 the call is continued', () => {
    const { call, memory, grant, registers } = start()
    grant(0)
    memory.setUint32(ARGUMENT + 4, 600, true)
    memory.setUint32(ARGUMENT + 16, 1, true)
    expect(call(GRANT_TABLE_OP, SWAP, ARGUMENT, 2)).toBe(0)
    expect([memory.getInt16(ARGUMENT + 8, true), memory.getInt16(ARGUMENT + 20, true)]).toEqual([BAD_REFERENCE, 0])
    expect(call(GRANT_TABLE_OP, SWAP, ARGUMENT, 65)).toBe('again')
    expect([registers.rsi, registers.rdx]).toEqual([BigInt(ARGUMENT + 64 * 12), 1n])
  })
  it('are in use no more when the domain has ended, with whatever else was held', () => {
    const { grant, map, abi, memory, call, held, flags: of, leaks, leaveBehind } = start()
    grant(3)
    map(3)
    map(3, { flags: HOST | READ_ONLY })
    memory.setBigUint64(ARGUMENT, 6n, true)
    memory.setUint32(ARGUMENT + 8, 0, true)
    expect([call(24, 10, 0, ARGUMENT), held()]).toEqual([0, 3])
    abi.ended()
    expect([held(), leaks()]).toEqual([0, 0])
    leaveBehind(2)
    abi.ended()
    expect([leaks(), of(3)]).toEqual([2, 0])
  })
  it('and their mappings are forgotten with the domain', () => {
    const { grant, map, unmap, abi } = start()
    grant(3)
    const { handle } = map(3)
    abi.domain.begin()
    expect([unmap(handle), abi.domain.grantUses.count, abi.domain.mappings.count]).toEqual([BAD_HANDLE, 0, 0])
  })
})
