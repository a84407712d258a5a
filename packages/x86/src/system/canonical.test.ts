/** Addresses that are not canonical are refused where the manual says so, and nothing has happened before. In both tiers. */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { machineOf, TIERS } from '../testing/tiers.ts'
import { gpr, RSP, S } from '../state/layout.ts'

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

describe.each(TIERS)('relative branches over the canonical boundary, %s', (tier) => {
  // The last page of the lower half is mapped to the page of data: level by level through the tables behind those of `enter`.
  const last = 0x7fff_ffff_f000n
  function mapLastPage(m: ReturnType<typeof machineOf>): void {
    m.enter('long')
    const { tables } = PLACE
    m.write64(tables + 255 * 8, BigInt(tables + 0x8000) | 3n)
    m.write64(tables + 0x8000 + 511 * 8, BigInt(tables + 0x9000) | 3n)
    m.write64(tables + 0x9000 + 511 * 8, BigInt(tables + 0xa000) | 3n)
    m.write64(tables + 0xa000 + 511 * 8, BigInt(PLACE.data) | 3n)
    // The same page where nothing is near.
    m.write64(tables + 0xa000 + 510 * 8, BigInt(PLACE.data) | 3n)
    m.write64(tables + 0xa000 + 509 * 8, BigInt(PLACE.data) | 3n)
    m.interruptGate(13, SELECTOR.code64, PLACE.handlers + 13 * 8, 0x8e, 1)
  }
  const start = (m: ReturnType<typeof machineOf>, code: readonly number[], at: number, page = last): void => {
    m.write(PLACE.data + at, code)
    m.core.set64(S.rip, page + BigInt(at))
    m.go()
  }
  it.each<[string, number[]]>([
    ['JMP', [0xe9, 0, 0, 0, 0]],
    ['CALL', [0xe8, 0, 0, 0, 0]],
    ['JNZ, taken', [0x75, 0]],
    ['LOOP', [0xe2, 0]],
    ['LOOPNZ', [0xe0, 0]],
    ['JRCXZ, not taken, then JMP', [0xe3, 0, 0xeb, 0]],
  ])('%s is #GP there, and has done nothing', (_name, code) => {
    const m = machineOf(tier)
    // To the boundary itself; one byte less is on the page.
    for (const short of [0, 1]) {
      mapLastPage(m)
      m.set(1, 5)
      m.flags = 2
      m.write64(PLACE.stack - 8, 0x55n)
      const length = code.length
      const at = 0xff0 - length
      const jump = code.slice(-(code[0] === 0xe9 || code[0] === 0xe8 ? 5 : 2))
      jump[1] = 0x10 - short
      m.write(PLACE.data + 0xfff, [0xf4])
      start(m, [...code.slice(0, length - jump.length), ...jump], at)
      const isLoop = code[0] === 0xe2 || code[0] === 0xe0
      if (short) expect([m.vector, m.rip, m.register(1)]).toEqual([-1, Number(last) + 0x1000, isLoop ? 4n : 5n])
      else expect([m.vector, m.frame(true).error, m.frame(true).rip, m.register(1), m.read64(PLACE.stack - 8)]).toEqual([13, 0, Number(last) + at + length - jump.length, 5n, 0x55n])
    }
  })
  it('a link that was made where the same page lies elsewhere is not followed', () => {
    const m = machineOf(tier)
    mapLastPage(m)
    m.write(PLACE.data, [0xf4])
    for (let n = 0; n < 4; n++) start(m, [0xe9, 0x0b, 0, 0, 0], 0xff0, last - 0x2000n)
    expect([m.vector, m.rip]).toEqual([-1, Number(last) - 0x1000 + 1])
    start(m, [0xe9, 0x0b, 0, 0, 0], 0xff0)
    expect([m.vector, m.frame(true).rip]).toEqual([13, Number(last) + 0xff0])
  })
  it.each([-5, -6])('JMP in the first page of the upper half, %i from its start', (distance) => {
    const m = machineOf(tier)
    m.enter('long')
    const { tables } = PLACE
    const first = 0xffff_8000_0000_0000n
    m.write64(tables + 256 * 8, BigInt(tables + 0x8000) | 3n)
    m.write64(tables + 0x8000, BigInt(tables + 0x9000) | 3n)
    m.write64(tables + 0x9000, BigInt(tables + 0xa000) | 3n)
    m.write64(tables + 0xa000, BigInt(PLACE.data) | 3n)
    m.interruptGate(13, SELECTOR.code64, PLACE.handlers + 13 * 8, 0x8e, 1)
    m.write(PLACE.data, [0xf4])
    // At offset 1: to offset 0 or to the byte before the page.
    m.write(PLACE.data + 1, [0xe9, ...[0, 8, 16, 24].map((shift) => ((distance - 1) >> shift) & 0xff)])
    m.core.set64(S.rip, first + 1n)
    m.go()
    if (distance === -5) expect([m.vector, m.core.get64(S.rip)]).toEqual([-1, first + 1n])
    else expect([m.vector, m.frame(true).error, m.read64(Number(m.core.get64(gpr(RSP))) + 8)]).toEqual([13, 0, first + 1n])
  })
  it('code that runs over the boundary faults behind it', () => {
    const m = machineOf(tier)
    mapLastPage(m)
    start(m, [0x90, 0x90], 0xffe)
    expect([m.vector, m.frame(true).error, m.frame(true).rip]).toEqual([13, 0, 0x8000_0000_0000])
  })
})

describe('operands through SS of routines are #SS, others #GP', () => {
  it.each<[string, number[], number]>([
    ['SGDT', asm(64, 'sgdt [rsp]; hlt'), 12],
    ['LIDT', asm(64, 'lidt [rbp]; hlt'), 12],
    ['LIDT through DS', asm(64, 'lidt [rbx]; hlt'), 13],
    ['FXSAVE', asm(64, 'fxsave [rsp]; hlt'), 12],
    ['FXRSTOR', asm(64, 'fxrstor [rbp+16]; hlt'), 12],
    ['FXRSTOR through DS', asm(64, 'fxrstor [rbx]; hlt'), 13],
    ['XSAVE', asm(64, 'mov rax, 0x406a0; mov cr4, rax; xsave [rsp]; hlt'), 12],
    ['XSAVEC', asm(64, 'mov rax, 0x406a0; mov cr4, rax; xsavec [rsp]; hlt'), 12],
    ['XRSTOR', asm(64, 'mov rax, 0x406a0; mov cr4, rax; xrstor [rbp]; hlt'), 12],
    ['XRSTOR through DS', asm(64, 'mov rax, 0x406a0; mov cr4, rax; xrstor [rbx]; hlt'), 13],
    ['INVPCID', asm(64, 'mov eax, 2; invpcid rax, [rsp]; hlt'), 12],
    ['INVPCID through DS', asm(64, 'mov eax, 2; invpcid rax, [rbx]; hlt'), 13],
    ['LLDT', asm(64, 'lldt [rsp]; hlt'), 12],
    ['FNSAVE', asm(64, 'fnsave [rbp]; hlt'), 12],
    ['CMPXCHG16B', asm(64, 'cmpxchg16b [rsp]; hlt'), 12],
    ['JMP FAR', asm(64, 'jmp fword ptr [rsp]; hlt'), 12],
    ['OUTSB', asm(64, 'mov rsi, rbp; outsb; hlt'), 13],
  ])('%s', (_name, code, vector) => {
    const m = machineOf('interpreted')
    m.enter('long')
    for (const vector of [12, 13]) m.interruptGate(vector, SELECTOR.code64, PLACE.handlers + vector * 8, 0x8e, 1)
    for (const n of [3, 4, 5]) m.set(n, 0x8000_0000_0000)
    m.run(code)
    expect([m.vector, m.frame(true).error]).toEqual([vector, 0])
  })
})
