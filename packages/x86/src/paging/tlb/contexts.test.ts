/** Address spaces by PCID: what each sees, what switching keeps, and what reaches the translations of those that are not current. */
import { describe, expect, it } from 'vitest'
import { CONTEXT_COUNT, RBX, S } from '../../state/layout.ts'
import { CR4, VECTOR } from '../../state/register-bits.ts'
import { asm } from '../../testing/asm.ts'
import { PLACE, type BareMetal } from '../../testing/bare-metal.ts'
import { machineOf, TIERS, type Tier } from '../../testing/tiers.ts'
import { writeCr4 } from '../../control/control-registers.ts'

/** The first address space, of odd PCIDs, maps all as it is; the second has at 2 MiB what lies at 0. */
const SECOND = 0x30000
const [DATA, OTHER_DATA] = [0x22_0000, 0x2_0000]
const [CODE, OTHER_CODE] = [0x22_8000, 0x2_8000]
/** On a page of code that both map alike: jumps to CODE. */
const JUMP = 0x9000
const GLOBAL = 0x100

/** At CPL 0 in the first one. `global`: of the second's entry for 2 MiB. */
function twoSpaces(tier: Tier, global = 0): { machine: BareMetal; fills: () => number } {
  const machine = machineOf(tier)
  machine.enter('long', 0)
  machine.write64(SECOND, BigInt(SECOND + 0x1007))
  machine.write64(SECOND + 0x1000, BigInt(SECOND + 0x2007))
  machine.write64(SECOND + 0x2000, 0x87n)
  machine.write64(SECOND + 0x2008, BigInt(0x87 | global))
  const { core } = machine
  writeCr4(core, core.get64(S.cr4) | BigInt(CR4.pcide | CR4.pge))
  machine.write32(DATA, 10)
  machine.write32(OTHER_DATA, 3)
  return { machine, fills: () => Number(core.get64(S.statistics + 16)) }
}

const littleEndian = (value: bigint, bytes: number): number[] => Array.from({ length: bytes }, (_, n) => Number((value >> BigInt(8 * n)) & 0xffn))
/** MOV to CR3 of a PCID. */
function to(pcid: number, bit63 = 1n): number[] {
  const cr3 = (bit63 << 63n) | BigInt((pcid & 1 ? PLACE.tables : SECOND) | pcid)
  return [0x48, 0xb8, ...littleEndian(cr3, 8), ...asm(64, 'mov cr3, rax')]
}
const jump = (from: number, target: number): number[] => [0xe9, ...littleEndian(BigInt.asUintN(32, BigInt(target - from - 5)), 4)]
const repeat = (count: number, part: (n: number) => number[]): number[] => Array.from({ length: count }, (_, n) => part(n)).flat()

const ZERO = asm(64, 'xor ebx, ebx')
const ADD = asm(64, 'add ebx, [0x220000]')
const UD2 = asm(64, 'ud2')
/** The second one's 2 MiB are what the first one's are. */
const CHANGE = asm(64, 'mov qword ptr [0x32008], 0x200087')
const INVLPG = asm(64, 'invlpg [0x220000]')
/** The descriptor is at 21000H. */
const invpcid = (type: number): number[] => [0xb9, type, 0, 0, 0, ...asm(64, 'invpcid rcx, [0x21000]')]
const TOGGLE_PGE = asm(64, 'mov rax, cr4; btc rax, 7; mov cr4, rax')
const TOGGLE_PCIDE = asm(64, 'mov rax, cr4; btc rax, 17; mov cr4, rax; btc rax, 17; mov cr4, rax')

function result(machine: BareMetal, ...parts: number[][]): bigint {
  machine.run([...ZERO, ...parts.flat(), ...UD2])
  expect(machine.vector).toBe(VECTOR.UD)
  return machine.register(RBX)
}

describe.each(TIERS)('address spaces by PCID, %s', (tier) => {
  it('read each its own memory, and bit 63 keeps what was translated', () => {
    const { machine, fills } = twoSpaces(tier)
    const before = fills()
    expect(result(machine, repeat(50, () => [...to(1), ...ADD, ...to(2), ...ADD]))).toBe(650n)
    expect(fills() - before).toBeLessThan(12)
  })
  it('run each its own code at one address', () => {
    const { machine } = twoSpaces(tier)
    machine.write(CODE, asm(64, 'add ebx, 100; ret'))
    machine.write(OTHER_CODE, asm(64, 'add ebx, 1; ret'))
    machine.write(JUMP, jump(JUMP, CODE))
    const call = asm(64, 'mov eax, 0x9000; call rax')
    expect(result(machine, repeat(30, (n) => [...to(1 + (n % 2)), ...call]))).toBe(BigInt(15 * 101))
  })
  it('see writes to code that were made in another', () => {
    const { machine } = twoSpaces(tier)
    machine.write(OTHER_CODE, asm(64, 'add ebx, 1; ret'))
    const call = asm(64, 'mov eax, 0x228000; call rax')
    // The first writes where it has written before there was code.
    const increment = asm(64, 'inc byte ptr [0x28002]')
    expect(result(machine, to(1), asm(64, 'mov byte ptr [0x28010], 0'), repeat(20, () => [...to(2), ...call, ...to(1), ...increment]))).toBe(BigInt((20 * 21) / 2))
  })
  it(`may be more than the ${CONTEXT_COUNT} that are kept`, () => {
    const { machine } = twoSpaces(tier)
    expect(result(machine, repeat(6 * CONTEXT_COUNT, (n) => [...to(1 + (n % (2 * CONTEXT_COUNT))), ...ADD]))).toBe(BigInt(6 * (CONTEXT_COUNT / 2) * 13))
  })
  it('follow a global page that is mapped anew, through links that both have used', () => {
    const { machine } = twoSpaces(tier)
    for (const tables of [PLACE.tables, SECOND]) machine.write64(tables + 0x2008, 0x187n)
    machine.write(CODE, asm(64, 'add ebx, 100; ret'))
    machine.write(OTHER_CODE, asm(64, 'add ebx, 1; ret'))
    machine.write(JUMP, jump(JUMP, CODE))
    const call = asm(64, 'mov eax, 0x9000; call rax')
    const round = repeat(10, (n) => [...to(1 + (n % 2)), ...call])
    const remap = asm(64, 'mov qword ptr [0x12008], 0x200187; mov qword ptr [0x32008], 0x200187; invlpg [0x228000]')
    expect(result(machine, round, remap, round)).toBe(1010n)
  })
})

describe.each(TIERS)('a large page, %s', (tier) => {
  const OTHER_PART = 0x22_2000
  it.each([0, GLOBAL])('is flushed with all of its parts, though another PCID flushed one of them before; flag of what lies at 0: %d', (global) => {
    const { machine } = twoSpaces(tier)
    machine.write64(PLACE.tables + 0x2000, BigInt(0x87 | global))
    machine.write32(OTHER_PART, 10)
    machine.write32(OTHER_PART - 0x20_0000, 3)
    const addOther = asm(64, 'add ebx, [0x222000]')
    expect(result(machine, to(2), ADD, addOther, to(1), ADD, INVLPG, to(2), CHANGE, INVLPG, ZERO, addOther)).toBe(10n)
  })
})

describe('a PCID that is not the current one', () => {
  const keeps = 3n
  const loses = 10n
  it.each<[string, bigint, number[], number?, bigint?]>([
    ['keeps its translations over a write of CR3 with bit 63', keeps, to(2)],
    ['loses them where bit 63 is clear', loses, to(2, 0n)],
    ['keeps a global page there', keeps, to(2, 0n), GLOBAL],
    ['keeps them where another PCID is flushed', keeps, [...to(1, 0n), ...to(2)]],
    ['keeps them over INVLPG', keeps, [...INVLPG, ...to(2)]],
    ['loses a global page by INVLPG', loses, [...INVLPG, ...to(2)], GLOBAL],
    ['loses an address by INVPCID', loses, [...invpcid(0), ...to(2)], 0, 2n],
    ['keeps them where INVPCID names an address of the current one', keeps, [...invpcid(0), ...to(2)], 0, 1n],
    ['loses all by INVPCID', loses, [...invpcid(1), ...to(2)], 0, 2n],
    ['keeps a global page there', keeps, [...invpcid(1), ...to(2)], GLOBAL, 2n],
    ['keeps them where INVPCID names another', keeps, [...invpcid(1), ...to(2)], 0, 3n],
    ['loses them where INVPCID flushes everything', loses, [...invpcid(2), ...to(2)], GLOBAL],
    ['loses them where INVPCID flushes all but global pages', loses, [...invpcid(3), ...to(2)]],
    ['keeps a global page there', keeps, [...invpcid(3), ...to(2)], GLOBAL],
    ['loses them where CR4.PGE changes', loses, [...TOGGLE_PGE, ...to(2)], GLOBAL],
    ['loses them where CR4.PCIDE was clear', loses, [...asm(64, 'mov eax, 0x10000; mov cr3, rax'), ...TOGGLE_PCIDE, ...to(2)]],
  ])('%s', (_what, seen, program, global = 0, pcid = 0n) => {
    const { machine } = twoSpaces('interpreted', global)
    machine.write64(0x2_1000, pcid)
    machine.write64(0x2_1008, BigInt(DATA))
    expect(result(machine, to(2), ADD, ZERO, to(1), CHANGE, program, ADD)).toBe(seen)
  })
  it('loses a global page for which another one had a page fault', () => {
    const { machine } = twoSpaces('interpreted', GLOBAL)
    machine.write64(PLACE.tables + 0x2008, 0n)
    machine.run([...to(2), ...ADD, ...to(1), ...ADD])
    expect(machine.vector).toBe(VECTOR.PF)
    expect(result(machine, CHANGE, to(2), ADD)).toBe(10n)
  })
})
