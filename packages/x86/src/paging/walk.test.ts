/** The page walker, the second stage and the slow paths, on tables made by hand. */
import { beforeEach, describe, expect, it } from 'vitest'
import { BareMetal, GUEST_SIZE } from '../testing/bare-metal.ts'
import { NO_HOOKS } from '../testing/no-hooks.ts'
import { S, TLB, TLB_BANK } from '../state/layout.ts'
import { updateMode } from '../control/update-mode.ts'
import { SECOND_STAGE, WALK_FAULT, type Hooks, type WalkFaultAnswer } from '../state/hooks.ts'
import { ABANDONED, ACCESS, DEVICE, FAULT, HOST_BUS_FRAME } from '../state/paging-state.ts'
import {
  fetchPage,
  flushAll,
  flushNonGlobal,
  flushPage,
  loadPdptes,
  setSecondStage,
  slowModify,
  slowRead,
  slowWrite,
  updatePaging,
  walk,
} from './index.ts'

const P = 1n,
  W = 2n,
  U = 4n,
  A = 0x20n,
  D = 0x40n,
  PS = 0x80n,
  G = 0x100n,
  NX = 1n << 63n
const ROOT = 0x10000
let machine: BareMetal
const host = (guest: number) => guest + (16 << 20)

interface Mode {
  cr0?: number
  cr4?: number
  efer?: number
  cpl?: number
  ac?: boolean
}
function setMode({ cr0 = 0x8001_0031, cr4 = 0x20, efer = 0xd00, cpl = 0, ac = false }: Mode): void {
  const { core } = machine
  core.set64(S.cr0, BigInt(cr0 >>> 0))
  core.set64(S.cr4, BigInt(cr4))
  core.set64(S.efer, BigInt(efer))
  core.set64(S.cr3, BigInt(ROOT))
  core.set32(S.cpl, cpl)
  core.set32(S.flags, ac ? 0x40002 : 2)
  updatePaging(core)
  loadPdptes(core)
  updateMode(core)
  flushAll(core)
}
/** One path of 4-level tables for the linear address 0x40_0000_0000 + 0x1000 = entries 0, 256, 0, 1. */
const LINEAR = { low: 0x1000, high: 0x40 }
const PATH = [ROOT, ROOT + 0x1000 + 256 * 8, ROOT + 0x2000, ROOT + 0x3008]
function path4(leaf: bigint, rights = P | W | U): void {
  machine.write64(PATH[0]!, BigInt(ROOT + 0x1000) | rights)
  machine.write64(PATH[1]!, BigInt(ROOT + 0x2000) | rights)
  machine.write64(PATH[2]!, BigInt(ROOT + 0x3000) | rights)
  machine.write64(PATH[3]!, leaf)
}
const walk4 = (access: number) => walk(machine.core, LINEAR.low, LINEAR.high, access)

beforeEach(() => {
  machine = new BareMetal()
})

describe('permissions and error codes', () => {
  const USER = ACCESS.user,
    WRITE = ACCESS.write,
    FETCH = ACCESS.fetch,
    SMAP = ACCESS.smap
  const smep = 0x10_0020,
    smap = 0x20_0020
  it.each<[string, bigint, number, Mode, number | 'ok']>([
    ['not present, read', 0n, 0, {}, 0],
    ['not present, user write', 0n, USER | WRITE, {}, 6],
    ['not present, fetch with NX on', 0n, FETCH, {}, 0x10],
    ['not present, fetch with NX and SMEP off', 0n, FETCH, { efer: 0x500 }, 0],
    ['supervisor page, user read', P | W, USER, {}, 5],
    ['read-only, user write', P | U, USER | WRITE, {}, 7],
    ['read-only, supervisor write, WP', P, WRITE, {}, 3],
    ['read-only, supervisor write, no WP', P, WRITE, { cr0: 0x8000_0031 }, 'ok'],
    ['NX, fetch', P | NX, FETCH, {}, 0x11],
    ['NX, user fetch', P | U | NX, FETCH | USER, {}, 0x15],
    ['NX reserved when NXE is off', P | NX, 0, { efer: 0x500 }, 9],
    ['bit above MAXPHYADDR', P | (1n << 40n), 0, {}, 9],
    ['bit above MAXPHYADDR, user write', P | U | W | (1n << 51n), USER | WRITE, {}, 15],
    ['ignored bits 62:52', P | (0x7ffn << 52n), 0, {}, 'ok'],
    ['user page, supervisor fetch, SMEP', P | U, FETCH, { cr4: smep }, 0x11],
    ['user page, supervisor read, SMAP', P | U, SMAP, { cr4: smap }, 1],
    ['user page, supervisor write, SMAP', P | U | W, SMAP | WRITE, { cr4: smap }, 3],
    ['user page, supervisor read, SMAP, AC', P | U, 0, { cr4: smap, ac: true }, 'ok'],
    ['user page, user read, SMAP', P | U, USER, { cr4: smap, cpl: 3 }, 'ok'],
  ])('%s', (_name, leaf, access, mode, expected) => {
    setMode(mode)
    path4(leaf | 0x20_0000n)
    const result = walk4(access)
    if (expected === 'ok') expect(result).toBe(host(0x20_0000))
    else {
      expect(result).toBe(FAULT)
      expect(machine.core.paging.errorCode).toBe(expected)
    }
  })

  it('takes the rights of all levels together', () => {
    setMode({})
    path4(P | W | U | 0x20_0000n)
    machine.write64(PATH[1]!, BigInt(ROOT + 0x2000) | P | W)
    expect(walk4(ACCESS.user)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(5)
    machine.write64(PATH[1]!, BigInt(ROOT + 0x2000) | P | U | W | NX)
    expect(walk4(ACCESS.user | ACCESS.fetch)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(0x15)
  })

  it('PS is reserved in a PML4 entry', () => {
    setMode({})
    path4(P)
    machine.write64(PATH[0]!, BigInt(ROOT + 0x1000) | P | PS)
    expect(walk4(0)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(9)
  })
})

describe('accessed and dirty flags', () => {
  it('a read sets A on the way, a write D in the leaf', () => {
    setMode({})
    path4(P | W | U | 0x20_0000n)
    walk4(0)
    expect(PATH.map((at) => machine.read64(at) & (A | D))).toEqual([A, A, A, A])
    expect(machine.core.paging.writable).toBe(false)
    walk4(ACCESS.write)
    expect(machine.read64(PATH[3]!) & (A | D)).toBe(A | D)
    expect(machine.core.paging.writable).toBe(true)
  })
  it('a forbidden access leaves the leaf alone', () => {
    setMode({})
    path4(P | 0x20_0000n)
    walk4(ACCESS.write)
    expect(machine.read64(PATH[3]!) & (A | D)).toBe(0n)
  })
})

describe('page sizes', () => {
  it.each([
    ['2 MiB', 2, 0x20_0000n, 0x1000, 0x20_1000],
    ['1 GiB', 1, 0n, 0x1000, 0x1000],
  ])('%s', (_name, level, base, low, guest) => {
    setMode({})
    path4(0n)
    machine.write64(PATH[level]!, base | P | W | PS | G)
    expect(walk(machine.core, low, LINEAR.high, 0)).toBe(host(guest))
  })
  it.each([
    ['2 MiB', 2, 0x2000n],
    ['1 GiB', 1, 0x20_0000n],
  ])('reserved address bits of %s pages', (_name, level, bit) => {
    setMode({})
    path4(0n)
    machine.write64(PATH[level]!, bit | P | PS)
    expect(walk4(0)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(9)
  })
})

describe('32-bit paging', () => {
  beforeEach(() => setMode({ cr4: 0x10, efer: 0 }))
  it('4 KiB', () => {
    machine.write32(ROOT + 4, (ROOT + 0x1000) | 7)
    machine.write32(ROOT + 0x1000 + 4 * 3, 0x20_5007)
    expect(walk(machine.core, 0x40_3000, 0, ACCESS.write | ACCESS.user)).toBe(host(0x20_5000))
    expect(machine.read32(ROOT + 4)).toBe((ROOT + 0x1000) | 0x27)
    expect(machine.read32(ROOT + 0x1000 + 4 * 3)).toBe(0x20_5067)
  })
  it('4 MiB', () => {
    machine.write32(ROOT, 0x83)
    expect(walk(machine.core, 0x12_3000, 0, 0)).toBe(host(0x12_3000))
  })
  it('4 MiB, reserved bit 21', () => {
    machine.write32(ROOT, 0x20_0083)
    expect(walk(machine.core, 0, 0, 0)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(9)
  })
  it('PSE-36 reaches above 4 GiB', () => {
    machine.write32(ROOT, 0x83 | (3 << 13))
    expect(walk(machine.core, 0x1000, 0, 0)).toBe(DEVICE)
    expect(machine.core.paging.frame).toBe(3 * 0x10_0000 + 1)
  })
  it('the fetch bit of the error code stays clear', () => {
    expect(walk(machine.core, 0, 0, ACCESS.fetch)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(0)
  })
})

describe('PAE paging', () => {
  it('walks from the PDPTE registers', () => {
    machine.write64(ROOT + 8, BigInt(ROOT + 0x1000) | P)
    machine.write64(ROOT + 0x1000, BigInt(ROOT + 0x2000) | 7n)
    machine.write64(ROOT + 0x2000 + 8, 0x20_7007n)
    setMode({ efer: 0x800 })
    expect(walk(machine.core, 0x4000_1000, 0, ACCESS.user)).toBe(host(0x20_7000))
    machine.write64(ROOT + 8, 0n) // not seen before CR3 is loaded
    expect(walk(machine.core, 0x4000_1000, 0, 0)).toBe(host(0x20_7000))
    expect(walk(machine.core, 0x1000, 0, 0)).toBe(FAULT)
  })
  it('refuses reserved bits in a PDPTE', () => {
    setMode({ efer: 0x800 })
    machine.write64(ROOT, P | W)
    expect(loadPdptes(machine.core)).toBe(false)
    machine.write64(ROOT, P)
    expect(loadPdptes(machine.core)).toBe(true)
  })
  it('bits 62:52 are reserved', () => {
    machine.write64(ROOT, BigInt(ROOT + 0x1000) | P)
    machine.write64(ROOT + 0x1000, BigInt(ROOT + 0x2000) | 7n | (1n << 52n))
    setMode({ efer: 0x800 })
    expect(walk(machine.core, 0, 0, 0)).toBe(FAULT)
    expect(machine.core.paging.errorCode).toBe(9)
  })
})

it('5-level paging', () => {
  const at = ROOT + 0x5000
  machine.write64(ROOT + 8 * 2, BigInt(at) | 7n)
  machine.write64(at, BigInt(ROOT + 0x1000) | 7n)
  machine.write64(ROOT + 0x1000, BigInt(ROOT + 0x2000) | 7n)
  machine.write64(ROOT + 0x2000, 0x87n)
  setMode({ cr4: 0x1020 })
  expect(walk(machine.core, 0x3000, 2 << 16, 0)).toBe(host(0x3000))
})

it('a table where no memory is reads as ones: reserved bits', () => {
  setMode({})
  machine.write64(ROOT, BigInt(GUEST_SIZE) | 7n)
  expect(walk(machine.core, 0, 0, 0)).toBe(FAULT)
  expect(machine.core.paging.errorCode).toBe(9)
})

describe('slow paths', () => {
  const at = (low: number, high = 0) => {
    machine.core.set32(S.address, low)
    machine.core.set32(S.address + 4, high)
  }
  const tag = (bank: number, low: number, which: number) =>
    machine.core.i32[(machine.core.get32(S.banks) + bank * 65536 + ((low >>> 12) & 2047) * 32 + which) >>> 2]

  it('a read fills the read tag, a write the write tag', () => {
    setMode({})
    path4(P | W | U | 0x20_0000n)
    machine.write64(0x20_0010, 0x1122_3344_5566_7788n)
    at(0x1010, 0x40)
    expect(slowRead(machine.core, 8)).toBe(0)
    expect(machine.core.get64(S.value)).toBe(0x1122_3344_5566_7788n)
    const bank = TLB_BANK.supervisorUserAllowed
    expect(tag(bank, 0x1000, TLB.read)).toBe(0x1000)
    expect(tag(bank, 0x1000, TLB.write)).toBe(-1)
    machine.core.set64(S.value, 0xabn)
    expect(slowWrite(machine.core, 1)).toBe(0)
    expect(machine.read64(0x20_0010)).toBe(0x1122_3344_5566_77abn)
    expect(tag(bank, 0x1000, TLB.write)).toBe(0x1000)
  })
  it('crossing into a page that faults writes nothing, and CR2 is that page', () => {
    setMode({})
    path4(P | W | 0x20_0000n)
    at(0x1ffe, 0x40)
    machine.core.set64(S.value, 0x44332211n)
    expect(slowWrite(machine.core, 4)).toBe(1)
    expect(machine.core.get32(S.vector)).toBe(14)
    expect(machine.core.get32(S.errorCode)).toBe(2)
    expect([machine.core.paging.faultLow, machine.core.paging.faultHigh]).toEqual([0x2000, 0x40])
    expect(machine.read16(0x20_0ffe)).toBe(0)
    machine.write64(PATH[3]! + 8, P | W | 0x20_3000n)
    expect(slowWrite(machine.core, 4)).toBe(0)
    expect([machine.read16(0x20_0ffe), machine.read16(0x20_3000)]).toEqual([0x2211, 0x4433])
    expect(slowRead(machine.core, 4)).toBe(0)
    expect(machine.core.get32(S.value)).toBe(0x44332211)
  })
  it.each([
    [3, 13],
    [2, 12],
  ])('non-canonical through segment %i', (segment, vector) => {
    setMode({})
    at(0, 0x8000)
    expect(slowRead(machine.core, 8 | (segment << 8))).toBe(1)
    expect([machine.core.get32(S.vector), machine.core.get32(S.errorCode)]).toEqual([vector, 0])
  })
  it('devices are read and written, never entered into the TLB', () => {
    setMode({})
    path4(P | W | 0xfee0_0000n)
    at(0x1020, 0x40)
    expect(slowRead(machine.core, 4)).toBe(0)
    expect(machine.core.get32(S.value) >>> 0).toBe(0xd4d3d2d1)
    expect(slowModify(machine.core, 4)).toBe(0)
    expect(machine.core.get32(S.modify)).toBe(machine.core.base + S.value)
    machine.core.set64(S.value, 0x1_0000_0007n)
    expect(slowWrite(machine.core, 8)).toBe(0)
    expect(machine.deviceLog).toEqual([
      [0xfee00020, 4, undefined],
      [0xfee00020, 4, undefined],
      [0xfee00020, 4, 7],
      [0xfee00024, 4, 1],
    ])
    expect(tag(1, 0x1000, TLB.read)).toBe(-1)
  })
  it('modify checks for writing and gives the HPA', () => {
    setMode({})
    path4(P | 0x20_0000n)
    at(0x1010, 0x40)
    expect(slowModify(machine.core, 4)).toBe(1)
    expect(machine.core.get32(S.errorCode)).toBe(3)
    path4(P | W | 0x20_0000n)
    expect(slowModify(machine.core, 4)).toBe(0)
    expect(machine.core.get32(S.modify)).toBe(host(0x20_0010))
  })
  it('pages with code are written through the slow path, and their code is dropped', () => {
    setMode({})
    path4(P | W | D | A | 0x20_0000n)
    const dropped: number[] = []
    machine.core.code = {
      hasCode: (page) => page === host(0x20_0000),
      isCode: () => false, invalidate: (hpa, length) => void dropped.push(hpa, length),
    }
    at(0x1010, 0x40)
    expect(slowWrite(machine.core, 2)).toBe(0)
    expect(dropped).toEqual([host(0x20_0010), 2])
    expect(tag(1, 0x1000, TLB.write)).toBe(-1)
    expect(slowModify(machine.core, 2)).toBe(0)
    expect(machine.core.get32(S.modify)).toBe(machine.core.base + S.value)
  })
  it('#AC at CPL 3 with AM and AC', () => {
    setMode({ cr0: 0x8005_0031, cpl: 3, ac: true })
    path4(P | W | U | 0x20_0000n)
    at(0x1002, 0x40)
    expect(slowRead(machine.core, 2)).toBe(0)
    expect(slowRead(machine.core, 4)).toBe(1)
    expect(machine.core.get32(S.vector)).toBe(17)
    expect(tag(TLB_BANK.user, 0x1000, TLB.read)).toBe(-1)
  })
  it('fetches fill the execute tag only', () => {
    setMode({})
    path4(P | 0x20_0000n)
    expect(fetchPage(machine.core, 0x1004, 0x40)).toBe(host(0x20_0004))
    expect([tag(1, 0x1000, TLB.execute), tag(1, 0x1000, TLB.read)]).toEqual([0x1000, -1])
    expect(fetchPage(machine.core, 0, 0x8000)).toBe(-1)
    expect(machine.core.get32(S.vector)).toBe(13)
  })

  describe('flushes', () => {
    const fill = (leaf: bigint) => {
      setMode({ cr4: 0xa0 })
      path4(leaf | P | W | 0x20_0000n)
      at(0x1010, 0x40)
      slowRead(machine.core, 1)
      return () => tag(1, 0x1000, TLB.read) !== -1
    }
    it('CR3 keeps global pages', () => {
      const kept = fill(G)
      flushNonGlobal(machine.core)
      expect(kept()).toBe(true)
      flushPage(machine.core, 0x1000, 0x40)
      expect(kept()).toBe(false)
    })
    it('CR3 drops others', () => {
      const kept = fill(0n)
      flushNonGlobal(machine.core)
      expect(kept()).toBe(false)
    })
    it('INVLPG drops every piece of a large page', () => {
      const kept = fill(0n)
      machine.write64(PATH[2]!, 0x20_0000n | P | W | PS)
      flushAll(machine.core)
      slowRead(machine.core, 1)
      expect(kept()).toBe(true)
      flushPage(machine.core, 0x10_0000, 0x40)
      expect(kept()).toBe(false)
    })
    it('a page fault leaves nothing cached of the upper levels', () => {
      setMode({})
      path4(0n)
      expect(walk4(0)).toBe(FAULT)
      machine.write64(ROOT + 0x4008, P | 0x20_3000n)
      machine.write64(PATH[2]!, BigInt(ROOT + 0x4000) | P | W)
      // Absent when the fault came, present in the table of before: not what the tables say now.
      machine.write64(PATH[3]!, P | 0x20_0000n)
      expect(walk4(0)).toBe(host(0x20_3000))
    })
    it('a fault by a cached upper level is told by the tables', () => {
      setMode({})
      path4(P | W | 0x20_0000n, P | W)
      expect(walk4(0)).toBe(host(0x20_0000))
      for (const entry of PATH) machine.write64(entry, machine.read64(entry) | U)
      expect(walk4(ACCESS.user)).toBe(host(0x20_0000))
    })
    it.each([
      ['a read', 0x1010, 1],
      ['the second page of a read', 0x0ffc, 8],
    ])('a page fault leaves no translation of its page: of %s', (_name, low, bytes) => {
      setMode({})
      path4(P | 0x20_0000n)
      machine.write64(PATH[3]! - 8, P | W | 0x20_1000n)
      at(0x1010, 0x40)
      expect(slowRead(machine.core, 1)).toBe(0)
      at(low, 0x40)
      expect(slowWrite(machine.core, bytes)).toBe(1)
      expect(tag(1, 0x1000, TLB.read)).toBe(-1)
    })
    /** [name, mode, entry of the large page, upper half of its addresses, three parts of it, tables above] */
    it.each<[string, Mode, number, number, [number, number, number], () => void]>([
      ['2 MiB', {}, PATH[2]!, 0x40, [0x1000, 0x2000, 0x1f_f000], () => path4(0n)],
      ['1 GiB', {}, PATH[1]!, 0x40, [0x1000, 0x20_0000, 0x30_0000], () => path4(0n)],
      ['2 MiB of PAE', { efer: 0 }, ROOT + 0x2000, 0, [0x1000, 0x2000, 0x1f_f000], () => machine.write64(ROOT, BigInt(ROOT + 0x2000) | P)],
      ['4 MiB', { efer: 0, cr4: 0x10 }, ROOT, 0, [0x1000, 0x2000, 0x3f_f000], () => {}],
      ['4 MiB, of which the other half is used', { efer: 0, cr4: 0x10 }, ROOT, 0, [0x20_0000, 0x20_1000, 0x1000], () => {}],
    ])('INVLPG, or a page fault, of one part of a large page leaves nothing of the others: %s', (_name, mode, entry, high, [one, other, third], prepare) => {
      for (const how of ['INVLPG', 'page fault']) {
        machine = new BareMetal()
        const write = (value: bigint): void => (mode.cr4 === 0x10 ? machine.write32(entry, Number(value)) : machine.write64(entry, value))
        prepare()
        write(P | PS)
        setMode(mode)
        const reads = (low: number): boolean => {
          at(low, high)
          return slowRead(machine.core, 1) === 0
        }
        expect([reads(one), reads(other)]).toEqual([true, true])
        write(0n)
        if (how === 'INVLPG') flushPage(machine.core, third, high)
        else {
          at(third, high)
          expect(slowWrite(machine.core, 1)).toBe(1)
        }
        expect([how, tag(1, one, TLB.read), tag(1, other, TLB.read), reads(one), reads(other)]).toEqual([how, -1, -1, false, false])
      }
    })
    it('a page fault near another page of 1 GiB with the same hash keeps it', () => {
      setMode({})
      path4(0n)
      machine.write64(PATH[1]!, P | PS)
      // 1024 GiB higher: entries 2, 256.
      machine.write64(ROOT + 16, BigInt(ROOT + 0x1000) | P)
      at(0x1000, 0x40)
      expect(slowRead(machine.core, 1)).toBe(0)
      machine.write64(ROOT + 16, 0n)
      at(0x5000, 0x140)
      expect([slowRead(machine.core, 1), tag(1, 0x1000, TLB.read)]).toEqual([1, 0x1000])
    })
    it('after more fills than the journal holds', () => {
      setMode({})
      machine.write64(ROOT, BigInt(ROOT + 0x1000) | 7n)
      machine.write64(ROOT + 0x1000, 0x87n)
      for (let n = 0; n < 6000; n++) {
        at((n % 1000) * 4096 + (n & 1 ? 0x1000_0000 : 0))
        slowRead(machine.core, 1)
      }
      flushNonGlobal(machine.core)
      for (let n = 0; n < 2048; n++) expect(tag(1, n * 4096, TLB.read)).toBe(-1)
    })
  })
})

describe("faults of the guest's own tables, for hooks that ask for them", () => {
  const faults: [number, number, number, number][] = []
  function asking(answer: () => WalkFaultAnswer): void {
    const { core } = machine
    faults.length = 0
    core.paging.hooksFaults = true
    core.hooks = { ...NO_HOOKS, walkFault: (low, high, access) => (faults.push([low, high, access, core.paging.errorCode]), answer()) }
    setMode({})
  }
  const leaf = (value: bigint) => machine.write64(PATH[3]!, value)
  it.each<[string, () => WalkFaultAnswer, number]>([
    ['mends it', () => (leaf(P | W | U | 0x5000n), WALK_FAULT.retry), host(0x5000)],
    ['leaves it to the guest', () => WALK_FAULT.guest, FAULT],
    ['left', () => WALK_FAULT.left, ABANDONED],
    ['says it is a device', () => WALK_FAULT.device, DEVICE],
    ['gives code', () => ((machine.core.paging.frame = 7), WALK_FAULT.code), 0x7000],
  ])('the hook %s', (_name, answer, page) => {
    asking(answer)
    path4(0n)
    expect(walk(machine.core, LINEAR.low, LINEAR.high, ACCESS.write)).toBe(page)
    expect(faults).toEqual([[LINEAR.low, LINEAR.high, ACCESS.write, 2]])
  })
  it('is not asked where nothing asks for it, nor without a fault', () => {
    asking(() => WALK_FAULT.guest)
    path4(P | W | U | 0x5000n)
    walk(machine.core, LINEAR.low, LINEAR.high, ACCESS.write)
    machine.core.paging.hooksFaults = false
    setMode({})
    path4(0n)
    expect(walk(machine.core, LINEAR.low, LINEAR.high, ACCESS.write)).toBe(FAULT)
    expect(faults).toEqual([])
  })
})

describe('second stage', () => {
  const EPT = 0x30_0000 // host-physical, in guest memory for convenience
  const log: [string, number, number][] = []
  let answer: number
  const hooks = {
    secondStageViolation: (guest: number, qualification: number) => (
      log.push(['violation', guest, qualification]),
      answer
    ),
    secondStageMisconfiguration: (guest: number) => (log.push(['misconfiguration', guest, 0]), answer),
  } as unknown as Hooks
  /** Guest-physical page n of the first 2 MiB → host page of guest memory, with rights. */
  const map = (guest: number, rights: bigint, to = guest) =>
    machine.write64(EPT + 0x3000 + (guest >>> 12) * 8, BigInt(host(to)) | rights)
  const RWX = 7n | (6n << 3n)

  beforeEach(() => {
    log.length = 0
    answer = SECOND_STAGE.left
    for (let level = 0; level < 3; level++)
      machine.write64(EPT + level * 0x1000, BigInt(host(EPT + (level + 1) * 0x1000)) | 7n)
    for (let page = 0; page < 0x20_0000; page += 4096) map(page, RWX)
    setMode({})
    path4(P | W | U | 0x5000n)
    machine.core.hooks = hooks
    setSecondStage(machine.core, { root: host(EPT), accessedDirty: false })
  })

  it('translates both stages', () => {
    map(0x5000, RWX, 0x9000)
    expect(walk4(0)).toBe(host(0x9000))
  })
  it.each<[string, bigint, number, number]>([
    ['not present, read', 0n, 0, 0x181],
    ['not present, write', 0n, ACCESS.write, 0x182],
    ['not present, fetch', 0n, ACCESS.fetch, 0x184],
    ['read-only, write', 1n, ACCESS.write, 0x18a],
    ['no execute', 3n, ACCESS.fetch, 0x19c],
    ['execute-only, read', 4n, 0, 0x1a1],
  ])('violation: %s', (_name, rights, access, qualification) => {
    map(0x5000, rights)
    expect(walk4(access)).toBe(ABANDONED)
    expect(log).toEqual([['violation', 0x5000, qualification]])
  })
  it('violation on a paging structure', () => {
    map(ROOT + 0x2000, 0n)
    expect(walk4(0)).toBe(ABANDONED)
    expect(log).toEqual([['violation', ROOT + 0x2000, 0x81]])
  })
  it('setting A in a write-protected table is a write violation', () => {
    map(ROOT + 0x3000, 1n)
    expect(walk4(0)).toBe(ABANDONED)
    expect(log).toEqual([['violation', ROOT + 0x3000, 0x8a]])
  })
  it.each<[string, bigint]>([
    ['write without read', 2n],
    ['reserved memory type', 7n | (2n << 3n)],
    ['outside the machine', 7n | (1n << 36n)],
  ])('misconfiguration: %s', (_name, rights) => {
    map(0x5000, rights)
    expect(walk4(0)).toBe(ABANDONED)
    expect(log[0]![0]).toBe('misconfiguration')
  })
  it('device answers go to the bus at the guest-physical address', () => {
    map(0x5000, 0n)
    answer = SECOND_STAGE.device
    expect(walk4(0)).toBe(DEVICE)
    expect(machine.core.paging.frame).toBe(5)
  })
  it.each<[string, bigint, number, number, number]>([
    ['read', 3n, 0, DEVICE, 0xff_fedc5],
    ['write', 3n, ACCESS.write, DEVICE, 0xff_fedc5],
    ['a write of read-only registers', 1n, ACCESS.write, ABANDONED, 0],
    ['a fetch', 3n, ACCESS.fetch, ABANDONED, 0],
  ])('a leaf leads to the host bus: %s', (_name, rights, access, status, frame) => {
    machine.write64(EPT + 0x3000 + 5 * 8, 0xff_fedc_5000n | rights)
    expect(walk4(access)).toBe(status)
    if (status === DEVICE) expect(machine.core.paging.frame).toBe(HOST_BUS_FRAME | frame)
    expect(log.length).toBe(status === DEVICE ? 0 : 1)
  })
  it('a table on the host bus is a misconfiguration', () => {
    machine.write64(EPT + 0x2000, 0xff_0000_0000n | 7n)
    expect(walk4(0)).toBe(ABANDONED)
    expect(log[0]![0]).toBe('misconfiguration')
  })
  it('a large leaf leads to the host bus', () => {
    machine.write64(EPT + 0x2008, 0xff_0020_0000n | 3n | PS)
    path4(P | W | U | 0x20_5000n)
    expect(walk4(0)).toBe(DEVICE)
    expect(machine.core.paging.frame).toBe(HOST_BUS_FRAME | 0xff_00205)
  })
  it('retry walks again', () => {
    map(0x5000, 0n)
    machine.core.hooks = { ...hooks, secondStageViolation: () => (map(0x5000, RWX, 0xa000), SECOND_STAGE.retry) } as Hooks
    expect(walk4(0)).toBe(host(0xa000))
  })
  it('accessed and dirty flags; a clean page is not writable until written', () => {
    setSecondStage(machine.core, { root: host(EPT), accessedDirty: true })
    path4(P | W | U | A | D | 0x5000n)
    const entry = () => machine.read64(EPT + 0x3000 + 5 * 8) & 0x300n
    walk4(0)
    expect(entry()).toBe(0x100n)
    expect(machine.core.paging.writable).toBe(false)
    walk4(ACCESS.write)
    expect(entry()).toBe(0x300n)
    expect(machine.core.paging.writable).toBe(true)
    // Paging structures count as written.
    expect(machine.read64(EPT + 0x3000 + (ROOT >>> 12) * 8) & 0x300n).toBe(0x300n)
  })
  it('large pages', () => {
    machine.write64(EPT + 0x2000, BigInt(host(0)) | 7n | PS | (6n << 3n))
    setSecondStage(machine.core, { root: host(EPT), accessedDirty: false })
    expect(walk4(ACCESS.write)).toBe(host(0x5000))
  })
})
