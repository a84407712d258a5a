/** Rights of a walk: each kind of paging, each level, each right; and what the processor's own accesses may. (SDM Vol. 3A, "Determination of Access Rights", "Access Modes") */
import { describe, expect, it } from 'vitest'
import { BareMetal, PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { S, SEGMENT } from '../state/layout.ts'
import { ACCESS, FAULT } from '../state/paging-state.ts'
import { setSegment } from '../state/segments.ts'
import { updateMode } from '../control/update-mode.ts'
import { flushAll, loadPdptes, updatePaging, walk } from './index.ts'

const [P, W, U, A, D, NX] = [1n, 2n, 4n, 0x20n, 0x40n, 1n << 63n]
const ROOT = 0x10000
const PAGE = 0x23000
const machine = new BareMetal()
const { core } = machine

/** Linear address 3000H, by tables of this many levels below the root's registers; `rights` from the root's entry down. */
interface Kind {
  readonly name: string
  readonly cr4: number
  readonly efer: number
  readonly levels: number
  readonly bytes: 4 | 8
}
const KINDS: readonly Kind[] = [
  { name: '32-bit', cr4: 0, efer: 0, levels: 2, bytes: 4 },
  { name: 'PAE', cr4: 0x20, efer: 0x800, levels: 2, bytes: 8 },
  { name: '4-level', cr4: 0x20, efer: 0xd00, levels: 4, bytes: 8 },
  { name: '5-level', cr4: 0x1020, efer: 0xd00, levels: 5, bytes: 8 },
]
function tables({ cr4, efer, levels, bytes }: Kind, rights: readonly bigint[]): void {
  core.set64(S.cr0, 0x8001_0031n)
  core.set64(S.cr4, BigInt(cr4))
  core.set64(S.efer, BigInt(efer))
  core.set64(S.cr3, BigInt(ROOT))
  let table = ROOT
  if (levels === 2 && bytes === 8) machine.write64(ROOT, BigInt((table += 0x1000)) | P)
  for (const [n, right] of rights.entries()) {
    const isLeaf = n === levels - 1
    const at = table + (isLeaf ? 3 * bytes : 0)
    table += 0x1000
    const entry = BigInt(isLeaf ? PAGE : table) | P | A | D | right
    if (bytes === 8) machine.write64(at, entry)
    else machine.write32(at, Number(entry))
  }
  updatePaging(core)
  loadPdptes(core)
  updateMode(core)
  flushAll(core)
}

const ACCESSES = [
  ['supervisor read', 0], ['supervisor write', ACCESS.write], ['supervisor fetch', ACCESS.fetch], ['user read', ACCESS.user], ['user write', ACCESS.user | ACCESS.write], ['user fetch', ACCESS.user | ACCESS.fetch],
] as const
/** A level's own right is taken away; undefined: none is. */
const TAKEN = [undefined, 'W', 'U', 'NX'] as const

describe.each(KINDS)('$name paging', (kind) => {
  const levels = Array.from({ length: kind.levels }, (_, n) => n)
  const cases = TAKEN.filter((right) => right !== 'NX' || kind.bytes === 8).flatMap((right) => (right ? levels : [0]).map((level) => [right, level] as const))
  it.each(cases)('without %s at level %d', (right, level) => {
    const rights = levels.map((n) => (n === level ? (right === 'W' ? U : right === 'U' ? W : right === 'NX' ? W | U | NX : W | U) : W | U))
    for (const [, access] of ACCESSES) {
      const isRefused = (right === 'W' && (access & ACCESS.write) !== 0) || (right === 'U' && (access & ACCESS.user) !== 0) || (right === 'NX' && (access & ACCESS.fetch) !== 0)
      // With nothing cached, with the upper levels cached, and after a fault.
      for (const before of [[], [0], [access, 0]]) {
        tables(kind, rights)
        for (const earlier of before) walk(core, 0x3000, 0, earlier)
        const page = walk(core, 0x3000, 0, access)
        expect({ access, before, page, code: page === FAULT ? core.paging.errorCode : 0 }).toEqual({
          access, before, page: isRefused ? FAULT : PAGE + (16 << 20), code: isRefused ? 1 | (access & (kind.bytes === 8 ? ~0 : ~ACCESS.fetch)) : 0,
        })
      }
    }
  })
})

describe("the processor's own accesses under SMAP", () => {
  const [SMAP, AC] = [0x20_0000n, 0x4_0002]
  const LDT = 0x5000
  const LOAD = [0xb8, 0x0c, 0, 0, 0, 0x8e, 0xd8, 0x0f, 0x0b] // MOV EAX, 0CH; MOV DS, AX; UD2
  const READ = [0x8b, 0x1c, 0x25, 0x08, 0x50, 0, 0, 0x0f, 0x0b] // MOV EBX, [5008H]; UD2
  it.each<[string, bigint, number, number[], number]>([
    ['of the LDT, without SMAP', 0n, 2, LOAD, 6],
    ['of the LDT', SMAP, 2, LOAD, 14],
    ['of the LDT, which EFLAGS.AC does not open', SMAP, AC, LOAD, 14],
    ["of the same page by an instruction's operand", SMAP, 2, READ, 14],
    ["of the same page by an instruction's operand, which EFLAGS.AC opens", SMAP, AC, READ, 6],
  ])('%s', (_what, smap, flags, code, vector) => {
    machine.enter('long')
    // Pages of 4 KiB that are the supervisor's, but for that of the LDT.
    for (let page = 0; page < 512; page++) machine.write64(0x1_8000 + 8 * page, BigInt(page * 4096) | P | W | (page === LDT >>> 12 ? U : 0n))
    machine.write64(PLACE.tables + 0x2000, 0x1_8007n)
    machine.write64(LDT + 8, 0x00cf_9300_0000_ffffn)
    setSegment(core, SEGMENT.ldtr, SELECTOR.ldt, LDT, 0, 0xf, 0x82)
    core.set64(S.cr4, core.get64(S.cr4) | smap)
    updatePaging(core)
    machine.flags = flags
    flushAll(core)
    machine.run(code)
    expect(machine.vector).toBe(vector)
    if (vector === 14) expect([core.get32(S.cr2), machine.frame(true).error]).toEqual([LDT + 8, 1])
  })
})
