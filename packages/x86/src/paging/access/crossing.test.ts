/** Accesses over two pages: each page is translated and checked before anything is read or written, in both tiers. */
import { describe, expect, it } from 'vitest'
import { asm } from '../../testing/asm.ts'
import { GUEST_SIZE, PLACE } from '../../testing/bare-metal.ts'
import { machineOf, TIERS, type Tier } from '../../testing/tiers.ts'
import { RAX, S } from '../../state/layout.ts'

/** Linear pages 400000H and on, by what they are. A device answers D1H to each byte. */
const BASE = 0x40_0000
const TABLE = 0x3_0000
const DEVICE = GUEST_SIZE + 0x5000
type Page = 'ram' | 'device' | 'absent' | 'read-only'
const ENTRY: Readonly<Record<Page, (n: number) => number>> = {
  ram: (n) => (0x4_0000 + n * 0x1000) | 3,
  'read-only': (n) => (0x4_0000 + n * 0x1000) | 1,
  device: (n) => (DEVICE + n * 0x1000) | 3,
  absent: () => 0,
}

function machine(tier: Tier, pages: readonly [Page, Page]) {
  const m = machineOf(tier)
  m.enter('long')
  m.core.set64(S.cr0, 0x8005_0033n | 0x1_0000n)
  m.write64(PLACE.tables + 0x2000 + 8 * 2, BigInt(TABLE | 3))
  for (const [n, page] of pages.entries()) m.write64(TABLE + 8 * n, BigInt(ENTRY[page](n)))
  m.write32(0x4_0ffc, 0x1312_1110)
  m.write32(0x4_1000, 0x2322_2120)
  m.set(3, BASE + 0xffe)
  return m
}

describe.each(TIERS)('%s', (tier) => {
  it.each<[Page, Page, bigint]>([
    ['ram', 'ram', 0x2120_1312n],
    ['device', 'ram', 0x2120_d1d1n],
    ['ram', 'device', 0xd1d1_1312n],
    ['device', 'device', 0xd1d1_d1d1n],
  ])('a load from %s to %s', (first, second, value) => {
    const m = machine(tier, [first, second])
    m.run(asm(64, 'mov eax, [rbx]; hlt'))
    expect(m.register(RAX)).toBe(value)
  })

  it.each<[Page, Page, number, number, [number, number][]]>([
    ['ram', 'ram', 0x5678_1110, 0x2322_1234, []],
    ['device', 'ram', 0x1312_1110, 0x2322_1234, [[DEVICE + 0xffe, 0x78], [DEVICE + 0xfff, 0x56]]],
    ['ram', 'device', 0x5678_1110, 0x2322_2120, [[DEVICE + 0x1000, 0x34], [DEVICE + 0x1001, 0x12]]],
  ])('a store to %s and %s', (first, second, low, high, written) => {
    const m = machine(tier, [first, second])
    m.run(asm(64, 'mov dword ptr [rbx], 0x12345678; hlt'))
    expect([m.read32(0x4_0ffc), m.read32(0x4_1000)]).toEqual([low, high])
    expect(m.deviceLog.map(([at, , value]) => [at, value])).toEqual(written)
  })

  it.each<[Page, Page, number, number, number[]]>([
    ['device', 'ram', 0x1312_1110, 0x2322_2120, [0xd2, 0xd1]],
    ['ram', 'device', 0x1313_1110, 0x2322_2120, [0xd1, 0xd1]],
  ])('a read-modify-write of %s and %s', (first, second, low, high, written) => {
    const m = machine(tier, [first, second])
    m.run(asm(64, 'add dword ptr [rbx], 1; hlt'))
    expect([m.read32(0x4_0ffc), m.read32(0x4_1000)]).toEqual([low, high])
    expect(m.deviceLog.filter(([, , value]) => value !== undefined).map(([, , value]) => value)).toEqual(written)
  })

  it.each<[string, Page, Page, number[], number]>([
    ['a load', 'device', 'absent', asm(64, 'mov eax, [rbx]; hlt'), 0],
    ['a store', 'device', 'absent', asm(64, 'mov dword ptr [rbx], 0x12345678; hlt'), 2],
    ['a read-modify-write', 'device', 'absent', asm(64, 'add dword ptr [rbx], 1; hlt'), 2],
    ['a store', 'device', 'read-only', asm(64, 'mov dword ptr [rbx], 0x12345678; hlt'), 3],
    ['a read-modify-write', 'device', 'read-only', asm(64, 'add dword ptr [rbx], 1; hlt'), 3],
    ['16 bytes', 'device', 'absent', asm(64, 'movups xmm0, [rbx]; hlt'), 0],
    ['FXSAVE', 'device', 'absent', asm(64, 'sub rbx, 14; fxsave [rbx]; hlt'), 2],
  ])('#PF of %s, %s and %s: no device sees it', (_name, first, second, code, error) => {
    const m = machine(tier, [first, second])
    m.run(code)
    expect([m.vector, m.frame(true).error, m.core.get32(S.cr2)]).toEqual([14, error, BASE + 0x1000])
    expect(m.deviceLog).toEqual([])
  })

  it('FXSAVE writes to devices', () => {
    const m = machine(tier, ['ram', 'device'])
    m.run(asm(64, 'sub rbx, 14; fxsave [rbx]; hlt'))
    expect(m.read32(0x4_0ff0)).toBe(m.core.get32(S.fpuControl))
    expect(m.deviceLog.slice(0, 9).map(([at, , value]) => [at - DEVICE, value])).toEqual(
      [0, 0, 0, 0, 0, 0, 0, 0, m.core.get32(S.mxcsr) & 0xff].map((value, i) => [0x1000 + i, value]),
    )
  })
})
