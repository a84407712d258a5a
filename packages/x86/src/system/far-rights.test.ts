/** Which code segments JMP, CALL, RET and IRET may go to: every mixture of CPL, RPL, DPL and kind, against the rules of the manual. (SDM Vol. 2, the instructions' "Operation"; Vol. 3A, "Privilege Level Checking When Transferring Program Control Between Code Segments") */
import { describe, expect, it } from 'vitest'
import { BareMetal, PLACE, SELECTOR } from '../testing/bare-metal.ts'

const [UD, NP, SS, GP] = [6, 11, 12, 13]
const TARGET = 0x8200
/** The code segment in question, and the stack of the level to which it returns. */
const CODE = SELECTOR.free
const STACK = SELECTOR.free + 8
const le = (value: number, bytes: number): number[] => Array.from({ length: bytes }, (_, n) => (value / 256 ** n) & 0xff)
const push = (value: number): number[] => [0x68, ...le(value, 4)]

type Kind = 'jmp' | 'call' | 'retf' | 'iret'
interface Code {
  readonly kind: 'code' | 'conforming' | 'data'
  readonly dpl: number
  readonly present: boolean
  /** L and D. */
  readonly size: 'flat32' | 'flat64' | 'both'
}
const TYPE = { code: 0x1b, conforming: 0x1f, data: 0x13 }
const SIZE = { flat32: 0xc, flat64: 0xa, both: 0xe }

/** Segments of a mode that the test tries. */
const CODES: readonly Code[] = (['code', 'conforming', 'data'] as const).flatMap((kind) =>
  [0, 1, 2, 3].flatMap((dpl) =>
    [true, false].flatMap((present) => (['flat32', 'flat64', 'both'] as const).map((size) => ({ kind, dpl, present, size }))),
  ),
)

/** The instruction, with what it needs in memory or on the stack. */
function instruction(m: BareMetal, long: boolean, kind: Kind, cpl: number, selector: number, ss: number): number[] {
  const wide = long ? [0x48] : []
  const frame = [...push(selector), ...push(TARGET)]
  const popsStack = (selector & 3) > cpl || (kind === 'iret' && long)
  const outer = popsStack ? [...push(ss), ...push(0x7100)] : []
  if (kind === 'retf') return [...outer, ...frame, ...wide, 0xcb]
  if (kind === 'iret') return [...outer, ...push(2), ...frame, ...wide, 0xcf]
  if (!long) return [kind === 'jmp' ? 0xea : 0x9a, ...le(TARGET, 4), ...le(selector, 2)]
  m.write32(PLACE.data, TARGET)
  m.write16(PLACE.data + 4, selector)
  return [0xff, kind === 'jmp' ? 0x2c : 0x1c, 0x25, ...le(PLACE.data, 4)]
}

/** Vector and error code, or the level at which it arrives. */
type Result = readonly [vector: number, error: number] | { readonly cpl: number }

function byTheManual(long: boolean, kind: Kind, cpl: number, rpl: number, { kind: type, dpl, present, size }: Code): Result {
  const refused = [GP, CODE] as const
  if (type === 'data') return refused
  if (kind === 'jmp' || kind === 'call') {
    if (type === 'conforming' ? dpl > cpl : rpl > cpl || dpl !== cpl) return refused
  } else {
    if (rpl < cpl) return refused
    if (type === 'conforming' ? dpl > rpl : dpl !== rpl) return refused
  }
  if (long && size === 'both') return refused
  if (!present) return [NP, CODE]
  return { cpl: kind === 'jmp' || kind === 'call' ? cpl : rpl }
}

function bench(long: boolean, cpl: 0 | 3) {
  const m = new BareMetal()
  const enter = () => m.enter(long ? 'long' : 'protected', cpl)
  /** What the handler that halted finds. The code that is reached raises #UD. */
  const result = (): Result => {
    const size = long ? 8 : 4
    if (m.vector !== UD) return [m.vector, m.frame(true, size).error]
    const { rip, cs } = m.frame(false, size)
    return rip === TARGET && (cs & ~3) === CODE ? { cpl: cs & 3 } : [UD, rip]
  }
  return { m, enter, result }
}

const WAYS = [false, true].flatMap((long) => ([0, 3] as const).map((cpl) => ({ mode: long ? 'long' : 'protected', long, cpl })))

describe.each(WAYS)('in $mode mode at CPL $cpl', ({ long, cpl }) => {
  const { m, enter, result } = bench(long, cpl)
  it.each(['jmp', 'call', 'retf', 'iret'] as const)('%s goes where it may, and nowhere else', (kind) => {
    const wrong: unknown[] = []
    for (const code of CODES)
      for (let rpl = 0; rpl < 4; rpl++) {
        // (Outside long mode, L is reserved.)
        if (!long && code.size !== 'flat32') continue
        enter()
        m.descriptor(CODE, 0, 0xfffff, TYPE[code.kind] | (code.dpl << 5) | (code.present ? 0x80 : 0), SIZE[code.size])
        m.descriptor(STACK, 0, 0xfffff, 0x93 | (rpl << 5), 0xc)
        m.write(TARGET, [0x0f, 0x0b])
        m.run(instruction(m, long, kind, cpl, CODE | rpl, STACK | rpl))
        const [is, wanted] = [result(), byTheManual(long, kind, cpl, rpl, code)]
        if (JSON.stringify(is) !== JSON.stringify(wanted)) wrong.push({ ...code, rpl, is, wanted })
      }
    expect(wrong).toEqual([])
  })

  it.each(['jmp', 'call', 'retf', 'iret'] as const)('%s to a null selector, or beyond the table', (kind) => {
    for (const [selector, error] of [[0, 0], [cpl, 0], [0x100 | cpl, 0x100], [0x104 | cpl, 0x104]] as const) {
      enter()
      m.run(instruction(m, long, kind, cpl, selector, STACK))
      expect([selector, ...(result() as [number, number])]).toEqual([selector, GP, error])
    }
  })

  it.each(['jmp', 'call', 'retf', 'iret'] as const)('%s to the last byte of a segment, and to the next', (kind) => {
    for (const [limit, wanted] of [[TARGET, { cpl }], [TARGET - 1, [GP, 0]]] as const) {
      enter()
      m.descriptor(CODE, 0, limit, 0x9b | (cpl << 5), 4)
      m.descriptor(STACK, 0, 0xfffff, 0x93 | (cpl << 5), 0xc)
      m.write(TARGET, [0x0f, 0x0b])
      m.run(instruction(m, long, kind, cpl, CODE | cpl, STACK | cpl))
      const is = result()
      // The fetch of the second byte is beyond the limit.
      expect(Array.isArray(wanted) ? is : [GP, UD].includes(m.vector)).toEqual(Array.isArray(wanted) ? wanted : true)
      if (!Array.isArray(wanted)) expect(m.frame(m.vector === GP, long ? 8 : 4).rip).toBe(TARGET)
    }
  })
})

describe.each([false, true])('returning to CPL 3, long mode %s', (long) => {
  const { m, enter, result } = bench(long, 0)
  it.each<{ name: string; ss: number; rights: number; wanted: Result }>([
    { name: 'a stack of that level', ss: STACK | 3, rights: 0xf3, wanted: { cpl: 3 } },
    { name: 'one that grows down', ss: STACK | 3, rights: 0xf7, wanted: { cpl: 3 } },
    { name: 'an RPL of 2', ss: STACK | 2, rights: 0xf3, wanted: [GP, STACK] },
    { name: 'a DPL of 2', ss: STACK | 3, rights: 0xd3, wanted: [GP, STACK] },
    { name: 'read-only', ss: STACK | 3, rights: 0xf1, wanted: [GP, STACK] },
    { name: 'code', ss: STACK | 3, rights: 0xfb, wanted: [GP, STACK] },
    { name: 'a system segment', ss: STACK | 3, rights: 0xe3, wanted: [GP, STACK] },
    { name: 'absent', ss: STACK | 3, rights: 0x73, wanted: [SS, STACK] },
    { name: 'null', ss: 0, rights: 0xf3, wanted: [GP, 0] },
    { name: 'null of RPL 3', ss: 3, rights: 0xf3, wanted: [GP, 0] },
    { name: 'beyond the table', ss: 0x103, rights: 0xf3, wanted: [GP, 0x100] },
  ])('the stack segment is $name', ({ ss, rights, wanted }) => {
    for (const kind of ['retf', 'iret'] as const) {
      enter()
      m.descriptor(CODE, 0, 0xfffff, 0xfb, long ? 0xa : 0xc)
      m.descriptor(STACK, 0, rights === 0xf7 ? 0 : 0xfffff, rights, 0xc)
      m.write(TARGET, [0x0f, 0x0b])
      m.run(instruction(m, long, kind, 0, CODE | 3, ss))
      expect(result()).toEqual(wanted)
      if ('cpl' in wanted) expect(m.frame(false, long ? 8 : 4)).toMatchObject({ ss, rsp: 0x7100 })
    }
  })
})

describe('IRETQ with a null stack segment', () => {
  const { m, enter, result } = bench(true, 0)
  it.each<{ to: number; ss: number; wanted: Result }>([
    { to: 0, ss: 0, wanted: { cpl: 0 } },
    { to: 1, ss: 1, wanted: { cpl: 1 } },
    { to: 2, ss: 2, wanted: { cpl: 2 } },
    { to: 3, ss: 3, wanted: [GP, 0] },
    { to: 1, ss: 0, wanted: [GP, 0] },
    { to: 0, ss: 1, wanted: [GP, 0] },
  ])('SS $ss, to CPL $to', ({ to, ss, wanted }) => {
    enter()
    m.descriptor(CODE, 0, 0xfffff, 0x9b | (to << 5), 0xa)
    m.write(TARGET, [0x0f, 0x0b])
    m.run(instruction(m, true, 'iret', 0, CODE | to, ss))
    expect(result()).toEqual(wanted)
  })
})

describe.each([false, true])('through a call gate from CPL 3, long mode %s', (long) => {
  const { m, enter, result } = bench(long, 3)
  const GATE = 0x80
  const GATE_TYPE = 0x0c
  const go = (call: boolean, rpl: number) => {
    if (!long) return m.run([call ? 0x9a : 0xea, ...le(0, 4), ...le(GATE | rpl, 2)])
    m.write32(PLACE.data, 0)
    m.write16(PLACE.data + 4, GATE | rpl)
    return m.run([0xff, call ? 0x1c : 0x2c, 0x25, ...le(PLACE.data, 4)])
  }
  const prepare = (access: number, selector: number, rights: number, size = long ? 0xa : 0xc) => {
    enter()
    m.gate(GATE, selector, TARGET, access)
    m.write64(PLACE.gdt + GATE + 8, 0n)
    m.descriptor(CODE, 0, 0xfffff, rights, size)
    m.write(TARGET, [0x0f, 0x0b])
  }
  it('by the levels of the gate and of the code', () => {
    const wrong: unknown[] = []
    for (const call of [true, false])
      for (const gateDpl of [0, 2, 3])
        for (const rpl of [0, 3])
          for (const kind of ['code', 'conforming', 'data'] as const)
            for (const dpl of [0, 3])
              for (const [gateThere, codeThere] of [[true, true], [false, true], [true, false]] as const) {
                prepare(GATE_TYPE | (gateDpl << 5) | (gateThere ? 0x80 : 0), CODE | rpl, TYPE[kind] | (dpl << 5) | (codeThere ? 0x80 : 0))
                go(call, rpl)
                const wanted: Result =
                  gateDpl < 3 ? [GP, GATE]
                  : !gateThere ? [NP, GATE]
                  : kind === 'data' || (!call && kind === 'code' && dpl !== 3) ? [GP, CODE]
                  : !codeThere ? [NP, CODE]
                  : { cpl: kind === 'conforming' ? 3 : dpl }
                const is = result()
                if (JSON.stringify(is) !== JSON.stringify(wanted)) wrong.push({ call, gateDpl, rpl, kind, dpl, gateThere, codeThere, is, wanted })
              }
    expect(wrong).toEqual([])
  })

  it.each([
    { name: 'a null selector', selector: 0, size: undefined, wanted: [GP, 0] },
    { name: 'code of another size in long mode', selector: CODE, size: 0xc, wanted: long ? [GP, CODE] : { cpl: 0 } },
    { name: 'code of both sizes', selector: CODE, size: 0xe, wanted: long ? [GP, CODE] : { cpl: 0 } },
  ] as const)('to $name', ({ selector, size, wanted }) => {
    prepare(0xec, selector, 0x9b, size)
    go(true, 0)
    expect(result()).toEqual(wanted)
  })

  it('pushes what a return needs, on the stack of the level', () => {
    prepare(0xec, CODE, 0x9b)
    m.write(TARGET, [0xf4])
    go(true, 3)
    const bytes = long ? 8 : 4
    const word = (n: number) => m.read32(m.rsp + n * bytes)
    const length = 7
    expect([word(0), word(1) & 0xffff, word(2), word(3) & 0xffff]).toEqual([PLACE.code + length, long ? SELECTOR.userCode64 : SELECTOR.userCode32, PLACE.stack, SELECTOR.userData])
    expect(m.rsp).toBe(PLACE.kernelStack - 4 * bytes)
  })
})

describe('real-address mode, with 32-bit operands', () => {
  const m = new BareMetal()
  const push32 = (value: number): number[] => [0x66, 0x68, ...le(value, 4)]
  it.each<[Kind, (target: number) => number[]]>([
    ['jmp', (target) => [0x66, 0xea, ...le(target, 4), 0, 0]],
    ['call', (target) => [0x66, 0x9a, ...le(target, 4), 0, 0]],
    ['retf', (target) => [...push32(0), ...push32(target), 0x66, 0xcb]],
    ['iret', (target) => [...push32(2), ...push32(0), ...push32(target), 0x66, 0xcf]],
  ])('%s reaches the last byte of 64 KiB, and not the next', (_, code) => {
    m.enter('real')
    m.write(0xffff, [0xf4, 0xf4])
    m.run(code(0xffff))
    expect(m.rip).toBe(0x1_0000)
    m.enter('real')
    m.run(code(0x1_0000))
    // (No error code: the frame is IP, CS and FLAGS.)
    expect([m.vector, m.read16(m.rsp + 2), m.read16(m.rsp) >= PLACE.code]).toEqual([GP, 0, true])
  })
})
