/** Task switches to a 16-bit TSS and back, in both tiers. (SDM Vol. 3A, "16-Bit Task-State Segment (TSS)") */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { PLACE, SELECTOR, type BareMetal } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { S, SEGMENT } from '../state/layout.ts'
import { FLAG } from '../state/register-bits.ts'

const { tss, tss2 } = PLACE
/** Of the 16-bit TSS: offsets of IP, FLAGS, AX, ES, the LDT's selector. */
const IP = 0x0e, FLAGS = 0x10, AX = 0x12, ES = 0x22, LDT = 0x2a

/** A task that halts at 8400H and has 100H + n in its registers. */
function narrowTask(m: BareMetal, limit = 0x2b): void {
  m.enter('protected')
  m.descriptor(SELECTOR.tss2, tss2, limit, 0x81)
  m.write16(tss2 + IP, 0x8400)
  m.write16(tss2 + FLAGS, 2)
  for (let n = 0; n < 8; n++) m.write16(tss2 + AX + 2 * n, n === 4 ? 0x5f00 : 0x100 + n)
  for (const [n, selector] of [SELECTOR.data, SELECTOR.code32, SELECTOR.data, SELECTOR.data].entries()) m.write16(tss2 + ES + 2 * n, selector)
  m.write16(tss2 + LDT, 0)
  // Behind a 16-bit TSS nothing is read or written.
  m.write32(tss2 + 0x2c, 0xaaaa_aaaa)
}

describe.each(TIERS)('a 16-bit TSS, %s', (tier) => {
  const m = machineOf(tier)
  it('gives the lower halves; FS and GS are null, CR3 stays', () => {
    narrowTask(m)
    m.write(0x8400, asm(32, 'hlt'))
    const cr3 = m.core.get64(S.cr3)
    m.run(asm(32, 'mov eax, 0x12345678; jmp 0x48:0'))
    expect([m.rip, m.core.segmentSelector(SEGMENT.tr), m.core.get64(S.cr3)]).toEqual([0x8401, SELECTOR.tss2, cr3])
    // The upper halves are not maintained: processors fill them with ones.
    expect([0, 1, 2, 3, 4, 5, 6, 7].map((n) => m.register(n))).toEqual([0, 1, 2, 3, 4, 5, 6, 7].map((n) => (n === 4 ? 0xffff_5f00n : 0xffff_0100n + BigInt(n))))
    expect([SEGMENT.fs, SEGMENT.gs].map((n) => [m.core.segmentSelector(n), m.core.segmentAttributes(n) & 0x1_0000])).toEqual([[0, 0x1_0000], [0, 0x1_0000]])
    expect(m.read32(tss + 0x28)).toBe(0x1234_5678)
  })
  it('takes the lower halves when it is left, and no more bytes than it has', () => {
    narrowTask(m)
    m.write(0x8400, asm(32, 'mov eax, 0x12345678; mov ebx, 0x9abcdef0; iretd; hlt'))
    m.run(asm(32, 'mov eax, 0x77; call 0x48:0; hlt'))
    expect([m.rip, m.register(0), m.core.segmentSelector(SEGMENT.tr), m.flags & FLAG.NT]).toEqual([PLACE.code + 13, 0x77n, SELECTOR.tss, 0])
    expect([m.read16(tss2), m.read16(tss2 + AX), m.read16(tss2 + AX + 6), m.read16(tss2 + IP), m.read32(tss2 + 0x2c)]).toEqual([SELECTOR.tss, 0x5678, 0xdef0, 0x840b, 0xaaaa_aaaa])
  })
  it.each([[0x2b, -1], [0x2a, 10]])('with a limit of %i', (limit, vector) => {
    narrowTask(m, limit)
    m.write(0x8400, asm(32, 'hlt'))
    m.run(asm(32, 'jmp 0x48:0'))
    expect(m.vector).toBe(vector)
    if (vector > 0) expect(m.frame(true, 4).error).toBe(SELECTOR.tss2)
  })
})
