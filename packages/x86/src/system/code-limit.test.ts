/** Code at the limit of CS and beyond 64 KiB: EIP runs on, only branches with 16-bit operands cut it, and no byte is fetched from beyond the limit. In both tiers. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { handlerOf, PLACE, SELECTOR, type BareMetal } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { RAX, S, SEGMENT } from '../state/layout.ts'
import { setSegment } from '../state/segments.ts'
import { updateMode } from '../control/update-mode.ts'

/** Linear address of CS:0, so that EIP 10000H is on a page of its own. */
const BASE = 0x20_0000
const NOP = 0x90
const INC = asm(16, 'inc eax')

function enter(m: BareMetal, bits: 16 | 32, limit: number, base = BASE): void {
  m.enter('protected')
  setSegment(m.core, SEGMENT.cs, SELECTOR.code32, base, 0, limit, 0x9b | (bits === 32 ? 0x4000 : 0))
  updateMode(m.core)
}
function runAt(m: BareMetal, eip: number, code: number[], base = BASE): void {
  m.write(base + eip, code)
  m.core.set64(S.rip, BigInt(eip))
  m.go()
}

describe.each(TIERS)('%s', (tier) => {
  const m = machineOf(tier)
  it.each<[string, 16 | 32, number, number, number[], number]>([
    // The instruction that lies at the limit, and the first beyond it. Bases are such that both lie in the midst of a page, too.
    ['16-bit code runs over FFFFH', 16, 0xffff, BASE, [NOP, NOP], 0x1_0000],
    ['16-bit code, in the midst of a page', 16, 0xffff, BASE + 0x120, [NOP, NOP], 0x1_0000],
    ['16-bit code with an instruction across the limit', 16, 0xffff, BASE + 0x120, [NOP, 0xb8, 1, 2], 0xffff],
    ['32-bit code with a limit of FFFFH', 32, 0xffff, BASE, [NOP, NOP], 0x1_0000],
    ['a small limit', 16, 0x2fff, BASE + 0x40, [NOP, NOP], 0x3000],
    ['a limit of 32-bit code', 32, 0x2_0ffe, BASE + 0x10, [NOP, NOP, NOP], 0x2_0fff],
  ])('#GP: %s', (_name, bits, limit, base, code, at) => {
    enter(m, bits, limit, base)
    // A block that is long enough to have begun far in front of the limit.
    const lead = 100
    const eip = (code.length === 4 ? at - 1 : limit + 1 - code.length) - lead
    runAt(m, eip, [...Array<number>(lead).fill(NOP), ...code, NOP, NOP], base)
    expect([m.vector, m.frame(true, 4).error, m.frame(true, 4).rip]).toEqual([13, 0, at])
  })

  it.each<[string, 16 | 32, number]>([
    ['16-bit code with a limit of 1FFFFH', 16, 0x1_ffff],
    ['32-bit code', 32, 0xffff_ffff],
  ])('%s goes on beyond 64 KiB', (_name, bits, limit) => {
    for (const base of [BASE, BASE + 0x120]) {
      enter(m, bits, limit, base)
      m.set(RAX, 0)
      m.write(base + 0x1_0000, [...INC, ...INC, 0xf4])
      runAt(m, 0xfffe, [NOP, NOP], base)
      const length = INC.length
      expect([m.rip, m.register(RAX) & 0xffffn]).toEqual([0x1_0001 + 2 * length, 2n])
    }
  })

  it.each<[string, 16 | 32, number[], number]>([
    ['JMP with 16-bit operands', 16, asm(16, '.byte 0xeb, 0x10'), 0x22],
    ['and in 32-bit code', 32, asm(32, '.byte 0x66, 0xeb, 0x10'), 0x23],
    ['JNZ, taken', 16, asm(16, '.byte 0x75, 0x10'), 0x22],
    ['LOOP', 16, asm(16, '.byte 0xe2, 0x10'), 0x22],
    ['CALL', 16, asm(16, '.byte 0xe8, 0x10, 0'), 0x23],
    ['JMP with 32-bit operands is not cut', 16, asm(16, '.byte 0x66, 0xe9, 0x0a, 0, 0, 0'), 0x1_0020],
  ])('%s beyond 64 KiB', (_name, bits, code, target) => {
    for (let n = 0; n < 3; n++) {
      enter(m, bits, 0x1_ffff)
      m.flags = 2
      m.set(1, 5)
      m.write(BASE + 0x20, [NOP, NOP, NOP, 0xf4])
      m.write(BASE + 0x1_0020, [0xf4, 0xf4, 0xf4, 0xf4])
      runAt(m, 0x1_0010, [...code, 0xf4])
      // The halt is at 23H in the low part, at 10020H in the high one.
      expect([m.vector, m.rip, m.register(1)]).toEqual([-1, target > 0xffff ? target + 1 : 0x24, code[0] === 0xe2 ? 4n : 5n])
    }
  })

  it('a branch back over offset 0 comes out at the upper end', () => {
    // CS begins in the midst of a page, on which code stands before offset 0, too.
    for (let n = 0; n < 3; n++) {
      enter(m, 16, 0xffff, BASE + 0x800)
      m.write(BASE + 0x800 - 0x20, Array<number>(16).fill(0xcc))
      m.write(BASE + 0x800 + 0xffe0, [NOP, 0xf4])
      runAt(m, 0, asm(16, '.byte 0xeb, 0xde'), BASE + 0x800)
      expect(m.rip).toBe(0xffe2)
    }
  })

  it('real-address mode', () => {
    m.enter('real')
    const base = 0x3_0000
    setSegment(m.core, SEGMENT.cs, base >>> 4, base, 0, 0xffff, 0x9b)
    updateMode(m.core)
    runAt(m, 0xffff, [NOP, NOP], base)
    expect([m.rip - 1, m.read16(m.rsp), m.read16(m.rsp + 2)]).toEqual([handlerOf(13), 0, base >>> 4])
  })
})
void PLACE
