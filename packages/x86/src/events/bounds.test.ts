/** Both sides of each bound that segment loads and deliveries look at: rights, limits of tables, of stacks and of code. (SDM Vol. 3A, "Privilege Checking", "Limit Checking") */
import { describe, expect, it } from 'vitest'
import { asm } from '../testing/asm.ts'
import { BareMetal, handlerOf, PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { S, SEGMENT } from '../state/layout.ts'
import { setSegment } from '../state/segments.ts'

const m = new BareMetal()
const { free } = SELECTOR
const [UD, TS, NP, SS, GP] = [6, 10, 11, 12, 13]
/** UD2 follows what is tried: #UD where it succeeds. */
const LOADED = [UD, 0]
const outcome = (size = 4): [number, number] => [m.vector, m.vector === UD ? 0 : m.frame(true, size).error]
/** MOV EAX, selector; MOV to DS or SS; UD2: the same in 32- and 64-bit code. */
const load = (register: 'ds' | 'ss', selector: number): number[] => [0xb8, selector, 0, 0, 0, 0x8e, register === 'ds' ? 0xd8 : 0xd0, 0x0f, 0x0b]
const INT_21 = [0xcd, 0x21]

describe('a data segment', () => {
  it.each<[string, 0 | 3, number, number, number[]]>([
    ['of DPL 0 with RPL 0', 0, 0x93, 0, LOADED],
    ['of DPL 0 with RPL 1', 0, 0x93, 1, [GP, free]],
    ['of DPL 1 with RPL 1', 0, 0xb3, 1, LOADED],
    ['of DPL 2 with RPL 3', 0, 0xd3, 3, [GP, free]],
    ['of DPL 3 with RPL 3', 0, 0xf3, 3, LOADED],
    ['of DPL 3 with RPL 0', 3, 0xf3, 0, LOADED],
    ['of DPL 2 with RPL 0', 3, 0xd3, 0, [GP, free]],
    ['of readable code with RPL 0', 0, 0x9b, 0, LOADED],
    ['of readable code with RPL 3', 0, 0x9b, 3, [GP, free]],
    ['of readable conforming code with RPL 3', 0, 0x9f, 3, LOADED],
    ['of readable conforming code', 3, 0x9f, 0, LOADED],
    ['of code that is not readable', 0, 0x99, 0, [GP, free]],
    ['of conforming code that is not readable', 0, 0x9d, 0, [GP, free]],
    ['of conforming bits, but data', 0, 0x97, 3, [GP, free]],
    ['of an LDT', 0, 0x82, 0, [GP, free]],
    ['that is absent', 0, 0x13, 0, [NP, free]],
    ['that is absent, and out of reach', 0, 0x13, 3, [GP, free]],
  ])('%s at CPL %d', (_what, cpl, access, rpl, expected) => {
    m.enter('protected', cpl)
    m.descriptor(free, 0, 0xfffff, access, 0xc)
    m.run(load('ds', free | rpl))
    expect(outcome()).toEqual(expected)
  })
  it.each([
    [0x92, 0, 0x93],
    [0x93, 0, 0x93],
    // Refused: not marked.
    [0x92, 3, 0x92],
  ])('with access byte %d and RPL %d has %d then', (access, rpl, then) => {
    m.enter('protected')
    m.descriptor(free, 0, 0xfffff, access, 0xc)
    m.run(load('ds', free | rpl))
    expect((m.read32(PLACE.gdt + free + 4) >>> 8) & 0xff).toBe(then)
  })
  it.each<[string, number, () => void, number[]]>([
    ['whose last byte is at the limit of the GDT', free, () => setSegment(m.core, SEGMENT.gdtr, 0, PLACE.gdt, 0, free + 7, 0), LOADED],
    ['whose last byte is beyond it', free, () => setSegment(m.core, SEGMENT.gdtr, 0, PLACE.gdt, 0, free + 6, 0), [GP, free]],
    ['whose last byte is at the limit of the LDT', 0x0c, () => setSegment(m.core, SEGMENT.ldtr, SELECTOR.ldt, PLACE.ldt, 0, 0xf, 0x82), LOADED],
    ['whose last byte is beyond it', 0x0c, () => setSegment(m.core, SEGMENT.ldtr, SELECTOR.ldt, PLACE.ldt, 0, 0xe, 0x82), [GP, 0x0c]],
    ['the first of the LDT, which is not null', 4, () => setSegment(m.core, SEGMENT.ldtr, SELECTOR.ldt, PLACE.ldt, 0, 7, 0x82), LOADED],
    ['of an LDT that cannot be used', 0x0c, () => setSegment(m.core, SEGMENT.ldtr, SELECTOR.ldt, PLACE.ldt, 0, 0xff, 0x1_0082), [GP, 0x0c]],
  ])('%s', (_what, selector, prepare, expected) => {
    m.enter('protected')
    m.descriptor(free, 0, 0xfffff, 0x93, 0xc)
    // Of the GDT the same place holds what cannot be loaded.
    for (const at of [0, 8]) m.write64(PLACE.ldt + at, 0x00cf_9300_0000_ffffn)
    prepare()
    m.run(load('ds', selector))
    expect(outcome()).toEqual(expected)
  })
  it('below the level that IRET leads to becomes null; others and null ones stay', () => {
    m.enter('protected')
    m.descriptor(free, 0, 0xfffff, 0x9f, 0xc)
    m.write(0x8100, asm(32, 'ud2'))
    m.run(asm(32, 'mov eax, 0x2b; mov ds, ax; mov eax, 0x10; mov es, ax; mov eax, 0x70; mov fs, ax; mov eax, 3; mov gs, ax; push 0x2b; push 0x7100; push 2; push 0x23; push 0x8100; iretd'))
    expect([m.vector, ...[SEGMENT.ds, SEGMENT.es, SEGMENT.fs, SEGMENT.gs].map((n) => m.core.segmentSelector(n))]).toEqual([UD, 0x2b, 0, free, 3])
  })
})

describe('a stack segment', () => {
  it.each<[string, number, number, number, number[]]>([
    ['of DPL 0', 0x93, 0xfffff, 0, LOADED],
    ['that expands down', 0x97, 0, 0, LOADED],
    ['with RPL 3', 0x93, 0xfffff, 3, [GP, free]],
    ['of DPL 1', 0xb3, 0xfffff, 0, [GP, free]],
    ['of DPL 1 with RPL 1', 0xb3, 0xfffff, 1, [GP, free]],
    ['that cannot be written', 0x91, 0xfffff, 0, [GP, free]],
    ['of readable code', 0x9b, 0xfffff, 0, [GP, free]],
    ['that is absent', 0x13, 0xfffff, 0, [SS, free]],
    ['that is absent and cannot be written', 0x11, 0xfffff, 0, [GP, free]],
  ])('%s', (_what, access, limit, rpl, expected) => {
    m.enter('protected')
    m.descriptor(free, 0, limit, access, 0xc)
    m.run(load('ss', free | rpl))
    expect(outcome()).toEqual(expected)
  })
  it.each<['protected' | 'compatibility' | 'long', 0 | 3, number, number[]]>([
    ['long', 0, 0, LOADED],
    ['long', 0, 3, [GP, 0]],
    ['long', 3, 3, [GP, 0]],
    ['long', 3, 0, [GP, 0]],
    ['compatibility', 0, 0, [GP, 0]],
    ['protected', 0, 0, [GP, 0]],
  ])('null in %s mode at CPL %d with RPL %d', (mode, cpl, rpl, expected) => {
    m.enter(mode, cpl)
    m.run(load('ss', rpl))
    expect(outcome(mode === 'protected' ? 4 : 8)).toEqual(expected)
  })

  const [BIG, DOWN] = [0x4093, 0x4097]
  it.each<[string, number, number, number, number | 'shutdown']>([
    ['ends with the frame', BIG, 0x6fff, 0x7000, 0x6ff4],
    ['ends in it', BIG, 0x6ffe, 0x7000, 'shutdown'],
    ['begins with the frame, downwards', DOWN, 0x6ff3, 0x7000, 0x6ff4],
    ['begins in it, downwards', DOWN, 0x6ff4, 0x7000, 'shutdown'],
    ['of 16 bits begins with the frame, downwards', 0x97, 0x6ff3, 0x7000, 0x6ff4],
    ['of 16 bits begins in it, downwards', 0x97, 0x6ff4, 0x7000, 'shutdown'],
    ['of 16 bits wraps round, and keeps the upper half of ESP', 0x97, 0x100, 0x1234_0000, 0x1234_fff4],
    ['of 16 bits wraps round in the midst of the frame', 0x93, 0xffff, 0x1234_0004, 0x1234_fff8],
  ])('that %s', (_what, rights, limit, esp, then) => {
    m.enter('protected')
    setSegment(m.core, SEGMENT.ss, SELECTOR.data, 0, 0, limit, rights)
    m.set(4, esp)
    const stop = m.run(asm(32, 'ud2'))
    if (then === 'shutdown') return expect(stop).toBe(then)
    expect([m.vector, m.rsp]).toEqual([UD, then])
    expect(m.read32(then & 0xffff)).toBe(PLACE.code)
  })
  it('is no other one in real mode, where it expands down', () => {
    m.enter('real')
    setSegment(m.core, SEGMENT.ss, 0, 0, 0, 0xffff, 0x97)
    m.run(asm(16, 'ud2'))
    expect([m.vector, m.rsp]).toEqual([UD, PLACE.stack - 6])
  })

  it.each([
    ['below 4 GiB', 0x1_0000_0000n],
    ['on both sides of 4 GiB', 0x1_0000_0010n],
    ['above 4 GiB', 0x1_0000_0100n],
  ])('of 64 bits: a frame %s', (_what, top) => {
    m.enter('long')
    // The last 2 MiB below 4 GiB and the first ones above are the first ones of memory.
    for (const gib of [3, 4]) m.write64(PLACE.tables + 0x1000 + 8 * gib, BigInt(PLACE.tables + 0x2007))
    m.write64(PLACE.tables + 0x2000 + 8 * 511, 0x87n)
    m.set(4, 0x7008)
    m.interruptGate(UD, SELECTOR.code64, handlerOf(UD), 0x8e, 1)
    m.write64(PLACE.tss + 0x24, top)
    m.run(asm(64, 'ud2'))
    expect([m.vector, BigInt(m.rsp)]).toEqual([UD, top - 40n])
    const words = [0, 1, 2, 3, 4].map((n) => m.read64((m.rsp + 8 * n) % 0x20_0000))
    expect(words).toEqual([BigInt(PLACE.code), BigInt(SELECTOR.code64), 0x1_0002n, 0x7008n, BigInt(SELECTOR.data)])
  })
})

describe('a vector', () => {
  it.each<['real' | 'protected' | 'long', number]>([
    ['real', 4],
    ['protected', 8],
    ['long', 16],
  ])('of the table of %s mode, within its limit and one byte beyond', (mode, entry) => {
    for (const [short, expected] of [[0, 0x21], [1, GP]] as const) {
      m.enter(mode)
      setSegment(m.core, SEGMENT.idtr, 0, mode === 'real' ? 0 : PLACE.idt, 0, entry * 0x22 - 1 - short, 0)
      m.run(INT_21)
      expect(m.vector).toBe(expected)
      if (short && mode !== 'real') expect(m.frame(true, mode === 'long' ? 8 : 4).error).toBe(0x21 * 8 + 2)
    }
  })
  it.each([0x2_1f98, 0x2_1f9c, 0x2_1f9d, 0x2_1fa1])('whose gate in long mode lies on two pages, or at an odd address: table at %d', (table) => {
    m.enter('long')
    setSegment(m.core, SEGMENT.idtr, 0, table, 0, 0xfff, 0)
    const at = table + 16 * UD
    for (let n = 0; n < 16; n++) m.write(at + n, [0])
    m.write(at, [handlerOf(UD) & 0xff, handlerOf(UD) >>> 8, SELECTOR.code64, 0, 0, 0x8e, 0, 0])
    m.run(asm(64, 'ud2'))
    expect([m.vector, m.frame(false).rip]).toEqual([UD, PLACE.code])
  })
  it.each<[string, () => void, number[], number[]]>([
    ['whose handler is at the limit of its code', () => m.descriptor(free, 0, handlerOf(0x21), 0x9b, 4), INT_21, [0x21]],
    ['whose handler is beyond it', () => m.descriptor(free, 0, handlerOf(0x21) - 1, 0x9b, 4), INT_21, [GP, 0]],
    ['of less privileged code', () => m.descriptor(free, 0, 0xfffff, 0xbb, 0xc), INT_21, [GP, free]],
    ['of absent code', () => m.descriptor(free, 0, 0xfffff, 0x1b, 0xc), INT_21, [NP, free]],
    ['of absent code that is less privileged', () => m.descriptor(free, 0, 0xfffff, 0x3b, 0xc), INT_21, [GP, free]],
    ['of data', () => m.descriptor(free, 0, 0xfffff, 0x93, 0xc), INT_21, [GP, free]],
  ])('%s', (_what, prepare, code, expected) => {
    m.enter('protected')
    m.interruptGate(0x21, free, handlerOf(0x21), 0x8e)
    prepare()
    m.run(code)
    expect(expected.length === 1 ? [m.vector] : [m.vector, m.frame(true, 4).error]).toEqual(expected)
    // A fault is one of INT n, not of its handler.
    if (expected.length > 1) expect(m.frame(true, 4).rip).toBe(PLACE.code)
  })
})

it('saves all of RIP, the stack being in the TLB or not', () => {
  m.enter('long')
  m.write64(PLACE.tables + 0x1000 + 8 * 4, BigInt(PLACE.tables + 0x2007))
  const high = 0x1_0000_0000n | BigInt(PLACE.code)
  m.write(PLACE.code, asm(64, 'ud2'))
  for (const _ of ['cold', 'warm']) {
    m.core.set64(S.rip, high)
    m.set(4, PLACE.stack)
    m.go()
    expect([m.vector, m.read64(m.rsp), m.rsp]).toEqual([UD, high, PLACE.stack - 40])
  }
})
it('leaves virtual-8086 mode for CPL 0 only', () => {
  for (const [target, expected] of [[SELECTOR.code32, [0x21]], [SELECTOR.userCode32 & ~3, [GP, SELECTOR.userCode32 & ~3]]] as const) {
    m.enter('protected')
    m.interruptGate(0x21, target, handlerOf(0x21), 0xee)
    m.write(0x1_0000, INT_21)
    // EIP CS EFLAGS (VM, IOPL 3) ESP SS ES DS FS GS
    for (const [n, value] of [0, 0x1000, 0x2_3002, 0x100, 0x5000, 0, 0, 0, 0].entries()) m.write32(0x6e00 + 4 * n, value)
    m.set(4, 0x6e00)
    m.run([0xcf])
    expect(expected.length === 1 ? [m.vector] : [m.vector, m.frame(true, 4).error]).toEqual(expected)
  }
})
it('IRET takes a frame from two pages that are apart in memory', () => {
  m.enter('long')
  for (let page = 0; page < 512; page++) m.write64(0x1_8000 + 8 * page, BigInt((page === 7 ? 10 : page) * 4096) | 7n)
  m.write64(PLACE.tables + 0x2000, 0x1_8007n)
  const frame = [0x8100, SELECTOR.code64, 2, 0x6100, SELECTOR.data]
  for (const [n, value] of frame.entries()) m.write64((n < 2 ? 0x6ff0 : 0xa000 - 0x10) + 8 * n, BigInt(value))
  m.write(0x8100, asm(64, 'ud2'))
  m.set(4, 0x6ff0)
  m.run([0x48, 0xcf])
  expect([m.vector, m.frame(false)]).toEqual([UD, { error: 0, rip: 0x8100, cs: SELECTOR.code64, flags: 0x1_0002, rsp: 0x6100, ss: SELECTOR.data }])
})

describe('a TSS', () => {
  it.each<[string, 'protected' | 'long', number, number]>([
    ['of 32 bits: SS0 ends', 'protected', 0x8b, 9],
    ['of 16 bits: SS0 ends', 'protected', 0x83, 5],
    ['of 64 bits: RSP0 ends', 'long', 0x8b, 11],
  ])('%s at its limit, or one byte beyond', (_what, mode, rights, limit) => {
    for (const short of [0, 1]) {
      m.enter(mode, 3)
      if (rights === 0x83) {
        m.write16(PLACE.tss + 2, PLACE.kernelStack)
        m.write16(PLACE.tss + 4, SELECTOR.data)
      }
      setSegment(m.core, SEGMENT.tr, SELECTOR.tss, PLACE.tss, 0, limit - short, rights)
      // #TS, on the same stack, and so on.
      const stop = m.run(asm(64, 'ud2'))
      expect(short ? stop : [m.vector, m.rsp & ~0xff]).toEqual(short ? 'shutdown' : [UD, PLACE.kernelStack - 0x100])
    }
  })
  it.each([
    ['ends at its limit', 0x2b, [UD, 0]],
    ['ends one byte beyond', 0x2a, [TS, SELECTOR.tss | 1]],
  ])('of 64 bits: IST1 %s', (_what, limit, expected) => {
    m.enter('long')
    m.interruptGate(UD, SELECTOR.code64, handlerOf(UD), 0x8e, 1)
    setSegment(m.core, SEGMENT.tr, SELECTOR.tss, PLACE.tss, 0, limit, 0x8b)
    m.run(asm(64, 'ud2'))
    expect(outcome(8)).toEqual(expected)
  })
})
