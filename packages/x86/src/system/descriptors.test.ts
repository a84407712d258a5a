/** What instructions make of descriptors, of every type, level and mode: LAR, LSL, VERR, VERW, LLDT and LTR; the fixed segments of SYSENTER and SYSEXIT; the I/O permission bitmap. Against the rules of the manual. (SDM Vol. 2; Vol. 1, "I/O Permission Bit Map") */
import { describe, expect, it } from 'vitest'
import { BareMetal, PLACE, SELECTOR } from '../testing/bare-metal.ts'
import { RAX, RCX, RDX, S, SEG, segment, SEGMENT } from '../state/layout.ts'
import { FLAG, RIGHTS } from '../state/register-bits.ts'

const [UD, NP, GP] = [6, 11, 13]
const FREE = SELECTOR.free
const UD2 = [0x0f, 0x0b]
/** They take CX, and give EAX. */
const LAR = [0x0f, 0x02, 0xc1]
const LSL = [0x0f, 0x03, 0xc1]
const VERR = [0x0f, 0x00, 0xe1]
const VERW = [0x0f, 0x00, 0xe9]
const LLDT = [0x0f, 0x00, 0xd1]
const LTR = [0x0f, 0x00, 0xd9]

const WAYS = [false, true].map((long) => ({ long, mode: long ? 'long' : 'protected' }) as const)
const size = (long: boolean): number => (long ? 8 : 4)

/** System types that LAR and LSL accept. */
const LAR_TYPES = { protected: [1, 2, 3, 4, 5, 9, 11, 12], long: [2, 9, 11, 12] }
const LSL_TYPES = { protected: [1, 2, 3, 9, 11], long: [2, 9, 11] }

describe.each(WAYS)('what a descriptor shows of itself in $mode mode', ({ long, mode }) => {
  const m = new BareMetal()
  it.each([0, 3] as const)('at CPL %d', (cpl) => {
    const wrong: unknown[] = []
    for (let type = 0; type < 32; type++)
      for (const dpl of [0, 1, 3])
        for (const rpl of [0, 1, 3])
          for (const present of [0, 0x80]) {
            const isSegment = type >= 16
            const isCode = isSegment && (type & 8) !== 0
            const isVisible = (isCode && (type & 4) !== 0) || dpl >= Math.max(cpl, rpl)
            const access = type | (dpl << 5) | present
            const accepted = (types: readonly number[]) => isVisible && (isSegment || types.includes(type))
            const wanted = [
              accepted(LAR_TYPES[mode]) ? 0xc0_0000 | (access << 8) : -1,
              accepted(LSL_TYPES[mode]) ? 0x123_4fff : -1,
              isVisible && isSegment && (!isCode || (type & 2) !== 0) ? 1 : 0,
              isVisible && isSegment && !isCode && (type & 2) !== 0 ? 1 : 0,
            ]
            const is = [LAR, LSL, VERR, VERW].map((code, n) => {
              m.enter(mode, cpl)
              m.descriptor(FREE, 0, 0x1234, access, 0xc)
              m.set(RAX, 0x5555)
              m.set(RCX, FREE | rpl)
              m.flags = 2
              m.run([...code, ...UD2])
              const zero = (m.frame(false, size(long)).flags & FLAG.ZF) !== 0
              if (m.vector !== UD) return `vector ${m.vector}`
              if (n >= 2) return Number(zero)
              // What is not accepted leaves the destination.
              const value = Number(m.register(RAX))
              return zero ? value : value === 0x5555 ? -1 : `changed to ${value}`
            })
            if (JSON.stringify(is) !== JSON.stringify(wanted)) wrong.push({ type, dpl, rpl, present, is, wanted })
          }
    expect(wrong).toEqual([])
  })

  it.each([0, 3, 0x100, 0x104])('a selector that names nothing: %d', (selector) => {
    for (const code of [LAR, LSL, VERR, VERW]) {
      m.enter(mode)
      m.set(RCX, selector)
      m.flags = 2 | FLAG.ZF
      m.run([...code, ...UD2])
      expect([m.vector, m.frame(false, size(long)).flags & FLAG.ZF]).toEqual([UD, 0])
    }
  })
})

describe.each(WAYS)('LLDT and LTR in $mode mode', ({ long, mode }) => {
  const m = new BareMetal()
  const run = (code: number[], selector: number, prepare = () => {}) => {
    m.enter(mode)
    prepare()
    m.set(RCX, selector)
    m.run([...code, ...UD2])
    return m.vector === UD ? 'loaded' : ([m.vector, m.frame(true, size(long)).error] as const)
  }
  const state = (n: number) => [m.core.segmentSelector(n), m.core.segmentBase(n), m.core.segmentLimit(n)]
  const describe_ = (access: number) => () => {
    m.descriptor(FREE, 0x123456, 0x789, access)
    m.write64(PLACE.gdt + FREE + 8, long ? 0x7bcdn : 0n)
  }
  const base = long ? 0x7bcd_0012_3456n : 0x123456n

  it('take descriptors of their types, present, and no others', () => {
    const wrong: unknown[] = []
    for (let type = 0; type < 32; type++)
      for (const present of [0, 0x80])
        for (const [name, code, types] of [['lldt', LLDT, [2]], ['ltr', LTR, long ? [9] : [1, 9]]] as const) {
          const is = run([...code], FREE, describe_(type | present))
          const wanted = !types.includes(type as never) ? [GP, FREE] : present ? 'loaded' : [NP, FREE]
          if (JSON.stringify(is) !== JSON.stringify(wanted)) wrong.push({ name, type, present, is, wanted })
        }
    expect(wrong).toEqual([])
  })

  it('load base and limit, and LTR marks the task busy', () => {
    expect(run(LLDT, FREE | 2, describe_(0x82))).toBe('loaded')
    expect(state(SEGMENT.ldtr)).toEqual([FREE | 2, base, 0x789])
    expect(m.read32(PLACE.gdt + FREE + 4) & 0xff00).toBe(0x8200)
    // (Deliveries need no TSS without a change of level.)
    expect(run(LTR, FREE | 1, describe_(0x89))).toBe('loaded')
    expect(state(SEGMENT.tr)).toEqual([FREE | 1, base, 0x789])
    expect(m.read32(PLACE.gdt + FREE + 4) & 0xff00).toBe(0x8b00)
    expect(m.core.segmentAttributes(SEGMENT.tr) & 0x1f).toBe(0xb)
  })

  it.each([
    { name: 'null', selector: 0, lldt: 'loaded', ltr: [GP, 0] },
    { name: 'null of RPL 3', selector: 3, lldt: 'loaded', ltr: [GP, 0] },
    { name: 'in the LDT', selector: FREE | 4, lldt: [GP, FREE | 4], ltr: [GP, FREE | 4] },
    { name: 'beyond the table', selector: 0x100, lldt: [GP, 0x100], ltr: [GP, 0x100] },
  ])('a selector that is $name', ({ selector, lldt, ltr }) => {
    expect(run(LTR, selector, describe_(0x89))).toEqual(ltr)
    expect(run(LLDT, selector, describe_(0x82))).toEqual(lldt)
    if (lldt === 'loaded') expect(m.core.segmentAttributes(SEGMENT.ldtr) & RIGHTS.unusable).toBe(RIGHTS.unusable)
  })

  it.runIf(long).each([
    { name: 'a type', upper: 0x0100_0000_0000n },
    { name: 'a base that is not canonical', upper: 0x8000n },
  ])('the upper half of a descriptor must not have $name', ({ upper }) => {
    for (const [code, access] of [[LLDT, 0x82], [LTR, 0x89]] as const) {
      const prepare = () => {
        describe_(access)()
        m.write64(PLACE.gdt + FREE + 8, upper)
      }
      expect(run([...code], FREE, prepare)).toEqual([GP, FREE])
    }
  })
})

describe('SYSENTER and SYSEXIT', () => {
  const m = new BareMetal()
  const begin = (mode: 'real' | 'protected' | 'long', cpl: 0 | 3, cs: number) => {
    m.enter(mode, cpl)
    m.core.set64(S.sysenterCs, BigInt(cs))
    m.core.set64(S.sysenterEsp, 0x6f00n)
    m.core.set64(S.sysenterEip, 0x8800n)
    m.write(0x8800, [0xf4])
  }
  it.each(['protected', 'long'] as const)('enter level 0 in %s mode, from any', (mode) => {
    for (const cpl of [0, 3] as const)
      for (const rpl of [0, 3]) {
        begin(mode, cpl, SELECTOR.free | rpl)
        m.flags = 2 | FLAG.IF | FLAG.RF | FLAG.CF
        m.run([0x0f, 0x34])
        expect([m.rip, m.rsp, m.core.get32(S.cpl), m.flags]).toEqual([0x8801, 0x6f00, 0, 2 | FLAG.CF])
        for (const [n, selector] of [[SEGMENT.cs, FREE], [SEGMENT.ss, FREE + 8]] as const)
          expect([m.core.segmentSelector(n), m.core.segmentBase(n), m.core.segmentLimit(n)]).toEqual([selector, 0n, 0xffff_ffff])
      }
  })

  it.each([
    { name: 'protected', mode: 'protected', code: [0x0f, 0x35], cs: 16, ss: 24 },
    { name: 'long, to 32 bits', mode: 'long', code: [0x0f, 0x35], cs: 16, ss: 24 },
    { name: 'long, to 64 bits', mode: 'long', code: [0x48, 0x0f, 0x35], cs: 32, ss: 40 },
  ] as const)('leave for level 3: $name', ({ mode, code, cs, ss }) => {
    begin(mode, 0, FREE)
    m.set(RDX, 0x8200)
    m.set(RCX, 0x7100)
    m.write(0x8200, UD2)
    m.run([...code])
    const bytes = size(mode === 'long')
    expect([m.vector, m.frame(false, bytes)]).toMatchObject([UD, { rip: 0x8200, cs: (FREE + cs) | 3, rsp: 0x7100, ss: (FREE + ss) | 3 }])
  })

  it.each<{ name: string; mode: 'real' | 'protected' | 'long'; cpl: 0 | 3; cs: number; code: number[]; rdx?: bigint; rcx?: bigint }>([
    ...[0, 3].flatMap((cs) => [
      { name: `SYSENTER without a segment (${cs})`, mode: 'long' as const, cpl: 3 as const, cs, code: [0x0f, 0x34] },
      { name: `SYSEXIT without a segment (${cs})`, mode: 'long' as const, cpl: 0 as const, cs, code: [0x0f, 0x35] },
    ]),
    { name: 'SYSEXIT at level 3', mode: 'long', cpl: 3, cs: FREE, code: [0x0f, 0x35] },
    { name: 'SYSENTER in real-address mode', mode: 'real', cpl: 0, cs: FREE, code: [0x0f, 0x34] },
    { name: 'SYSEXIT in real-address mode', mode: 'real', cpl: 0, cs: FREE, code: [0x0f, 0x35] },
    { name: 'RIP that is not canonical', mode: 'long', cpl: 0, cs: FREE, code: [0x48, 0x0f, 0x35], rdx: 0x8000_0000_0000n },
    { name: 'RSP that is not canonical', mode: 'long', cpl: 0, cs: FREE, code: [0x48, 0x0f, 0x35], rcx: 0x8000_0000_0000n },
  ])('#GP: $name', ({ mode, cpl, cs, code, rdx = 0x8200n, rcx = 0x7100n }) => {
    begin(mode, cpl, cs)
    m.set(RDX, rdx)
    m.set(RCX, rcx)
    m.run(code)
    expect(m.vector).toBe(GP)
    if (mode === 'long') expect(m.frame(true)).toMatchObject({ error: 0, rip: PLACE.code })
  })
})

describe.each(WAYS)('the I/O permission bitmap in $mode mode', ({ long, mode }) => {
  const m = new BareMetal()
  const TR = segment(SEGMENT.tr)
  const MAP = 0x80
  /** Whether the port may be read, by a mapping of so many bytes. */
  const may = (port: number, bytes: number, prepare: () => void): boolean => {
    m.enter(mode, 3)
    m.write16(PLACE.tss + 0x66, MAP)
    prepare()
    m.set(RDX, port)
    m.run([...(bytes === 1 ? [0xec] : bytes === 2 ? [0x66, 0xed] : [0xed]), ...UD2])
    if (m.vector !== UD) expect([m.vector, m.frame(true, size(long)).error]).toEqual([GP, 0])
    return m.vector === UD
  }
  /** The stack of level 0 where a 16-bit TSS has it. */
  const shortTss = () => {
    if (long) return
    m.write16(PLACE.tss + 2, PLACE.kernelStack)
    m.write16(PLACE.tss + 4, SELECTOR.data)
  }
  it('has a bit for each byte of the ports', () => {
    const map = Uint8Array.from({ length: 16 }, (_, n) => Math.imul(n + 3, 0x9e3779b1) >>> 26)
    const wrong: unknown[] = []
    for (let port = 0; port < 96; port++)
      for (const bytes of [1, 2, 4]) {
        const wanted = Array.from({ length: bytes }, (_, n) => port + n).every((at) => !((map[at >> 3]! >> (at & 7)) & 1))
        if (may(port, bytes, () => m.write(PLACE.tss + MAP, map)) !== wanted) wrong.push({ port, bytes, wanted })
      }
    expect(wrong).toEqual([])
  })

  it.each([
    { name: 'both bytes are in the segment', limit: MAP + 0x13 + 1, allowed: true },
    { name: 'the second is beyond it', limit: MAP + 0x13, allowed: false },
    { name: 'both are', limit: MAP + 0x12, allowed: false },
  ])('$name', ({ limit, allowed }) => {
    const prepare = () => {
      m.write(PLACE.tss + MAP, new Uint8Array(64))
      m.core.set32(TR + SEG.limit, limit)
    }
    for (const bytes of [1, 2, 4]) expect(may(0x13 * 8, bytes, prepare)).toBe(allowed)
  })

  it.each([
    { name: 'a TSS that has none', prepare: () => m.core.set32(TR + SEG.limit, 0x66), allowed: false },
    { name: 'a TSS that ends behind its offset', prepare: () => (m.write16(PLACE.tss + 0x66, 0), m.core.set32(TR + SEG.limit, 0x67)), allowed: true },
    { name: 'a 16-bit TSS', prepare: () => (shortTss(), m.core.set32(TR + SEG.attributes, 0x83)), allowed: false },
    { name: 'a bit, at the IOPL of the level', prepare: () => ((m.flags = 2 | FLAG.IOPL), m.write(PLACE.tss + MAP, [1])), allowed: true },
    { name: 'a bit, at an IOPL below', prepare: () => ((m.flags = 2 | 0x2000), m.write(PLACE.tss + MAP, [1])), allowed: false },
  ])('$name', ({ prepare, allowed }) => {
    const clear = () => {
      m.write(PLACE.tss + MAP, new Uint8Array(64))
      prepare()
    }
    expect(may(0, 1, clear)).toBe(allowed)
  })
})
