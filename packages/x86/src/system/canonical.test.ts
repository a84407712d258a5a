/** Addresses that are not canonical are refused where the manual says so, and nothing has happened before. In both tiers. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { S } from '../state/layout.ts'

/** Upper half of a system descriptor's base, and whether it is canonical. */
const UPPER: [number, boolean][] = [
  [0, true],
  [0x7fff, true],
  [0x8000, false],
  [0xffff_7fff, false],
  [0xffff_8000, true],
  [0x1_0000, false],
]

describe('bases of system segments', () => {
  const cases = UPPER.flatMap(([upper, allowed]): [string, number, boolean][] => [['ltr', upper, allowed], ['lldt', upper, allowed]])
  it.each(cases)('%s with %i above the base', (name, upper, allowed) => {
    const m = machineOf('interpreted')
    m.enter('long')
    const selector = name === 'ltr' ? SELECTOR.tss2 : SELECTOR.ldt
    m.descriptor(selector, 0x1000, 0x67, name === 'ltr' ? 0x89 : 0x82)
    m.write32(PLACE.gdt + selector + 8, upper)
    m.write32(PLACE.gdt + selector + 12, 0)
    m.set(0, selector)
    m.run(name === 'ltr' ? asm(64, 'ltr ax; hlt') : asm(64, 'lldt ax; hlt'))
    expect(m.vector).toBe(allowed ? -1 : 13)
    if (!allowed) expect(m.frame(true).error).toBe(selector)
    // A TSS is marked busy when all else is right.
    if (name === 'ltr') expect((m.read32(PLACE.gdt + selector + 4) >>> 8) & 2).toBe(allowed ? 2 : 0)
  })
})

describe.each(TIERS)('targets of near jumps, %s', (tier) => {
  it.each<[string, number[], number]>([
    ['JMP to a constant', asm(64, 'mov rax, 0x800000000000; jmp rax'), 10],
    ['CALL of a constant', asm(64, 'mov rax, 0x800000000000; call rax'), 10],
    ['CALL of the last constant below the upper half', asm(64, 'mov rax, 0xffff7fffffffffff; call rax'), 10],
    ['JMP to a value', asm(64, 'mov rax, [0x20000]; jmp rax'), 8],
    ['CALL of a value', asm(64, 'call [0x20000]'), 0],
    ['RET', asm(64, 'mov rsp, 0x20000; ret'), 7],
  ])('%s', (_name, code, at) => {
    const m = machineOf(tier)
    m.enter('long')
    m.write64(0x20000, 0x8000_0000_0000n)
    m.write64(PLACE.stack - 8, 0x55n)
    m.interruptGate(13, SELECTOR.code64, PLACE.handlers + 13 * 8, 0x8e, 1)
    m.run(code)
    expect([m.vector, m.frame(true).error, m.frame(true).rip]).toEqual([13, 0, PLACE.code + at])
    expect([m.frame(true).rsp === PLACE.stack || m.frame(true).rsp === 0x20000, m.read64(PLACE.stack - 8)]).toEqual([true, 0x55n])
  })
  it.each<[string, number[], bigint]>([
    ['the last canonical address of the lower half', asm(64, 'mov rax, 0x7fffffffffff; jmp rax'), 0x7fff_ffff_ffffn],
    ['the first of the upper half', asm(64, 'mov rax, 0xffff800000000000; jmp rax'), 0xffff_8000_0000_0000n],
  ])('%s is a page fault there', (_name, code, target) => {
    const m = machineOf(tier)
    m.enter('long')
    m.run(code)
    expect([m.vector, m.core.get64(S.cr2)]).toEqual([14, target])
  })
})
