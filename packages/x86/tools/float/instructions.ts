/** The instructions that the oracle judges: their bytes, what operands they like, and the library call that stands for them. */
import {
  SSE_CONVERSION,
  SSE_OPERATION,
  X87_OPERATION,
  type FloatLibrary,
  type X87Transcendental,
} from '../../src/float/library.ts'
import { S } from '../../src/state/layout.ts'
import { WORD } from './record.ts'

/** What a case is made of besides the register stack. */
export type Operands = 'none' | 'f32' | 'f64' | 'f80' | 'integer' | 'bcd' | 'f32x4' | 'f64x2'

/** A library call's view of the state it works on; `memory` is the instruction's memory operand. */
export interface Call {
  readonly cpu: number
  readonly library: FloatLibrary
  /** The memory operand as words and as a long. */
  word(): number
  long(): bigint
  rcx(): bigint
  /** The upper words of the memory operand. */
  high(): number
  /** Copies the `value` slot to the memory operand. */
  setMemory(bytes: number): void
  setRcx(value: bigint, bits: number): void
  setFlags(flags: number): void
  xmm32(register: number, lane: number): number
  xmm64(register: number, lane: number): bigint
  setXmm32(value: number): void
  setXmm64(value: bigint): void
  clearUpper(): void
  setMemoryWord(index: number, value: number): void
  /** An i32 slot of the block. */
  slot(offset: number): number
  setSlot(offset: number, value: number): void
}

export interface Instruction {
  name: string
  code: readonly number[]
  unit: 'x87' | 'sse'
  operands: Operands
  /** For x87: the second register operand. */
  source?: number
  /** Results may differ by a unit in the last place, and C1 and precision with them. */
  approximate?: boolean
  /** A word of the record that holds addresses. */
  ignores?: number
  /** What /proc/cpuinfo calls the feature that the host needs. */
  feature?: string
  run(call: Call): void
}

export const instructions: Instruction[] = []

const x87 = (
  name: string,
  code: number[],
  operands: Operands,
  run: (call: Call) => void,
  more: Partial<Instruction> = {},
): void => {
  instructions.push({ name, code, unit: 'x87', operands, run, ...more })
}

for (const [name, operation] of Object.entries(X87_OPERATION)) {
  const field = operation << 3
  for (const source of [0, 1, 3]) {
    x87(
      `${name} st,st(${source})`,
      [0xd8, 0xc0 | field | source],
      'none',
      (c) => void c.library.x87_arith(c.cpu, operation, 0, source, 0),
      { source },
    )
  }
  // To ST(i) the opcodes of subtract and subtract reversed, and of both divides, change places.
  const reversed = operation >= 4 ? field ^ 8 : field
  x87(`${name} st(2),st`, [0xdc, 0xc2 | reversed], 'none', (c) => void c.library.x87_arith(c.cpu, operation, 2, 0, 0), {
    source: 2,
  })
  x87(`${name}p st(1),st`, [0xde, 0xc1 | reversed], 'none', (c) => void c.library.x87_arith(c.cpu, operation, 1, 0, 1))
  x87(`${name} m32`, [0xd8, field], 'f32', (c) => void c.library.x87_arith_f32(c.cpu, operation, c.word()))
  x87(`${name} m64`, [0xdc, field], 'f64', (c) => void c.library.x87_arith_f64(c.cpu, operation, c.long()))
  x87(
    `${name} i32`,
    [0xda, field],
    'integer',
    (c) => void c.library.x87_arith_integer(c.cpu, operation, BigInt(c.word() | 0)),
  )
  x87(
    `${name} i16`,
    [0xde, field],
    'integer',
    (c) => void c.library.x87_arith_integer(c.cpu, operation, BigInt((c.word() << 16) >> 16)),
  )
}

x87('fsqrt', [0xd9, 0xfa], 'none', (c) => void c.library.x87_sqrt(c.cpu))
x87('fchs', [0xd9, 0xe0], 'none', (c) => void c.library.x87_negate(c.cpu))
x87('fabs', [0xd9, 0xe1], 'none', (c) => void c.library.x87_absolute(c.cpu))
x87('frndint', [0xd9, 0xfc], 'none', (c) => void c.library.x87_round(c.cpu))
x87('fscale', [0xd9, 0xfd], 'none', (c) => void c.library.x87_scale(c.cpu))
x87('fxtract', [0xd9, 0xf4], 'none', (c) => void c.library.x87_extract(c.cpu))
x87('fprem', [0xd9, 0xf8], 'none', (c) => void c.library.x87_remainder(c.cpu, 0))
x87('fprem1', [0xd9, 0xf5], 'none', (c) => void c.library.x87_remainder(c.cpu, 1))

const approximate = (name: string, code: number[], call: keyof X87Transcendental): void =>
  x87(name, code, 'none', (c) => void c.library[call](c.cpu), { approximate: true })
approximate('fsin', [0xd9, 0xfe], 'x87_sine')
approximate('fcos', [0xd9, 0xff], 'x87_cosine')
approximate('fsincos', [0xd9, 0xfb], 'x87_sine_cosine')
approximate('fptan', [0xd9, 0xf2], 'x87_tangent')
approximate('fpatan', [0xd9, 0xf3], 'x87_arc_tangent')
approximate('f2xm1', [0xd9, 0xf0], 'x87_exponential')
approximate('fyl2x', [0xd9, 0xf1], 'x87_logarithm')
approximate('fyl2xp1', [0xd9, 0xf9], 'x87_logarithm_plus_one')

x87('fcom st(1)', [0xd8, 0xd1], 'none', (c) => void c.library.x87_compare(c.cpu, 1, 1, 0))
x87('fcomp st(2)', [0xd8, 0xda], 'none', (c) => void c.library.x87_compare(c.cpu, 2, 1, 1), { source: 2 })
x87('fcompp', [0xde, 0xd9], 'none', (c) => void c.library.x87_compare(c.cpu, 1, 1, 2))
x87('fucom st(1)', [0xdd, 0xe1], 'none', (c) => void c.library.x87_compare(c.cpu, 1, 0, 0))
x87('fucomp st(3)', [0xdd, 0xeb], 'none', (c) => void c.library.x87_compare(c.cpu, 3, 0, 1), { source: 3 })
x87('fucompp', [0xda, 0xe9], 'none', (c) => void c.library.x87_compare(c.cpu, 1, 0, 2))
x87('fcomp m32', [0xd8, 0x18], 'f32', (c) => void c.library.x87_compare_f32(c.cpu, c.word(), 1))
x87('fcom m64', [0xdc, 0x10], 'f64', (c) => void c.library.x87_compare_f64(c.cpu, c.long(), 0))
x87('ficom i32', [0xda, 0x10], 'integer', (c) => void c.library.x87_compare_integer(c.cpu, BigInt(c.word() | 0), 0))
x87(
  'ficomp i16',
  [0xde, 0x18],
  'integer',
  (c) => void c.library.x87_compare_integer(c.cpu, BigInt((c.word() << 16) >> 16), 1),
)
x87('ftst', [0xd9, 0xe4], 'none', (c) => void c.library.x87_test(c.cpu))
x87('fxam', [0xd9, 0xe5], 'none', (c) => void c.library.x87_examine(c.cpu))
const order = (name: string, code: number[], signalling: number, pops: number): void =>
  x87(name, code, 'none', (c) => {
    c.library.x87_order(c.cpu, 1, signalling, pops)
    c.setFlags(c.word())
  })
order('fcomi', [0xdb, 0xf1], 1, 0)
order('fcomip', [0xdf, 0xf1], 1, 1)
order('fucomi', [0xdb, 0xe9], 0, 0)
order('fucomip', [0xdf, 0xe9], 0, 1)

x87('fld m32', [0xd9, 0x00], 'f32', (c) => void c.library.x87_load_f32(c.cpu, c.word()))
x87('fld m64', [0xdd, 0x00], 'f64', (c) => void c.library.x87_load_f64(c.cpu, c.long()))
x87('fld m80', [0xdb, 0x28], 'f80', (c) => void c.library.x87_load_f80(c.cpu, c.long(), c.high()))
x87('fild i16', [0xdf, 0x00], 'integer', (c) => void c.library.x87_load_integer(c.cpu, BigInt((c.word() << 16) >> 16)))
x87('fild i32', [0xdb, 0x00], 'integer', (c) => void c.library.x87_load_integer(c.cpu, BigInt(c.word() | 0)))
x87('fild i64', [0xdf, 0x28], 'integer', (c) => void c.library.x87_load_integer(c.cpu, c.long()))
x87('fbld', [0xdf, 0x20], 'bcd', (c) => void c.library.x87_load_bcd(c.cpu, c.long(), c.high()))
x87('fld st(0)', [0xd9, 0xc0], 'none', (c) => void c.library.x87_load_st(c.cpu, 0))
x87('fld st(3)', [0xd9, 0xc3], 'none', (c) => void c.library.x87_load_st(c.cpu, 3))
;['fld1', 'fldl2t', 'fldl2e', 'fldpi', 'fldlg2', 'fldln2', 'fldz'].forEach((name, index) =>
  x87(name, [0xd9, 0xe8 + index], 'none', (c) => void c.library.x87_load_constant(c.cpu, index)),
)

const stores = (name: string, code: number[], bytes: number, store: (c: Call) => number): void =>
  x87(name, code, 'none', (c) => {
    if (!(store(c) & 2)) c.setMemory(bytes)
  })
stores('fst m32', [0xd9, 0x10], 4, (c) => c.library.x87_store_f32(c.cpu, 0))
stores('fstp m32', [0xd9, 0x18], 4, (c) => c.library.x87_store_f32(c.cpu, 1))
stores('fst m64', [0xdd, 0x10], 8, (c) => c.library.x87_store_f64(c.cpu, 0))
stores('fstp m64', [0xdd, 0x18], 8, (c) => c.library.x87_store_f64(c.cpu, 1))
stores('fstp m80', [0xdb, 0x38], 10, (c) => c.library.x87_store_f80(c.cpu))
stores('fist i16', [0xdf, 0x10], 2, (c) => c.library.x87_store_integer(c.cpu, 16, 0, 0))
stores('fistp i16', [0xdf, 0x18], 2, (c) => c.library.x87_store_integer(c.cpu, 16, 0, 1))
stores('fist i32', [0xdb, 0x10], 4, (c) => c.library.x87_store_integer(c.cpu, 32, 0, 0))
stores('fistp i32', [0xdb, 0x18], 4, (c) => c.library.x87_store_integer(c.cpu, 32, 0, 1))
stores('fistp i64', [0xdf, 0x38], 8, (c) => c.library.x87_store_integer(c.cpu, 64, 0, 1))
stores('fisttp i16', [0xdf, 0x08], 2, (c) => c.library.x87_store_integer(c.cpu, 16, 1, 1))
stores('fisttp i32', [0xdb, 0x08], 4, (c) => c.library.x87_store_integer(c.cpu, 32, 1, 1))
stores('fisttp i64', [0xdd, 0x08], 8, (c) => c.library.x87_store_integer(c.cpu, 64, 1, 1))
stores('fbstp', [0xdf, 0x30], 10, (c) => c.library.x87_store_bcd(c.cpu))
x87('fst st(2)', [0xdd, 0xd2], 'none', (c) => void c.library.x87_store_st(c.cpu, 2, 0))
x87('fstp st(0)', [0xdd, 0xd8], 'none', (c) => void c.library.x87_store_st(c.cpu, 0, 1))
x87('fstp st(5)', [0xdd, 0xdd], 'none', (c) => void c.library.x87_store_st(c.cpu, 5, 1))
x87('fxch st(1)', [0xd9, 0xc9], 'none', (c) => void c.library.x87_exchange(c.cpu, 1))
x87('fxch st(6)', [0xd9, 0xce], 'none', (c) => void c.library.x87_exchange(c.cpu, 6))
// The harness starts with all status flags clear: B is false, NB true.
x87('fcmovb st(1)', [0xda, 0xc1], 'none', (c) => void c.library.x87_move(c.cpu, 1, 0))
x87('fcmovnb st(4)', [0xdb, 0xc4], 'none', (c) => void c.library.x87_move(c.cpu, 4, 1))
x87('ffree st(3)', [0xdd, 0xc3], 'none', (c) => void c.library.x87_free(c.cpu, 3))
x87('fincstp', [0xd9, 0xf7], 'none', (c) => void c.library.x87_rotate(c.cpu, 1))
x87('fdecstp', [0xd9, 0xf6], 'none', (c) => void c.library.x87_rotate(c.cpu, -1))
x87('fnclex', [0xdb, 0xe2], 'none', (c) => void c.library.x87_clear_exceptions(c.cpu))
x87('fninit', [0xdb, 0xe3], 'none', (c) => void c.library.x87_initialize(c.cpu))
x87('fldcw', [0xd9, 0x28], 'integer', (c) => void c.library.x87_load_control(c.cpu, c.word() & 0xffff))

x87(
  'fnstenv',
  [0xd9, 0x30],
  'none',
  (c) => {
    c.setMemoryWord(0, 0xffff0000 | c.slot(S.fpuControl))
    c.setMemoryWord(1, 0xffff0000 | c.slot(S.fpuStatus))
    c.setMemoryWord(2, 0xffff0000 | c.library.x87_tag_word(c.cpu))
    c.setSlot(S.fpuControl, c.slot(S.fpuControl) | 0x3f)
  },
  { ignores: WORD.memory + 3 },
)

// SSE: xmm0 op= xmm1, so that the first is the destination.
const XMM0 = S.xmm
const XMM1 = S.xmm + 16
const FORMS = [
  { suffix: 'ps', prefix: [] as number[], operands: 'f32x4', lanes: 4, packed: true, single: true },
  { suffix: 'pd', prefix: [0x66], operands: 'f64x2', lanes: 2, packed: true, single: false },
  { suffix: 'ss', prefix: [0xf3], operands: 'f32x4', lanes: 1, packed: false, single: true },
  { suffix: 'sd', prefix: [0xf2], operands: 'f64x2', lanes: 1, packed: false, single: false },
] as const

const sse = (
  name: string,
  code: number[],
  operands: Operands,
  run: (call: Call) => void,
  more: Partial<Instruction> = {},
): void => {
  instructions.push({ name, code, unit: 'sse', operands, run, ...more })
}

for (const { suffix, prefix, operands, lanes, packed, single } of FORMS) {
  const basic = [
    ['add', 0x58, 'add'],
    ['mul', 0x59, 'multiply'],
    ['sub', 0x5c, 'subtract'],
    ['min', 0x5d, 'minimum'],
    ['div', 0x5e, 'divide'],
    ['max', 0x5f, 'maximum'],
    ['sqrt', 0x51, 'squareRoot'],
  ] as const
  for (const [name, opcode, key] of basic) {
    const operation = SSE_OPERATION[key]
    const root = key === 'squareRoot'
    sse(name + suffix, [...prefix, 0x0f, opcode, 0xc1], operands, (c) => {
      const left = c.cpu + (root ? XMM1 : XMM0)
      if (packed) {
        if (single) c.library.f32x_arith(c.cpu, operation, c.cpu + XMM0, left, c.cpu + XMM1, lanes)
        else c.library.f64x_arith(c.cpu, operation, c.cpu + XMM0, left, c.cpu + XMM1, lanes)
      } else if (single) c.setXmm32(c.library.f32_arith(c.cpu, operation, c.xmm32(root ? 1 : 0, 0), c.xmm32(1, 0)))
      else c.setXmm64(c.library.f64_arith(c.cpu, operation, c.xmm64(root ? 1 : 0, 0), c.xmm64(1, 0)))
    })
  }
  for (let predicate = 0; predicate < 8; predicate++) {
    sse(`cmp${suffix} ${predicate}`, [...prefix, 0x0f, 0xc2, 0xc1, predicate], operands, (c) => {
      if (packed) {
        if (single) c.library.f32x_compare(c.cpu, predicate, c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1, lanes)
        else c.library.f64x_compare(c.cpu, predicate, c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1, lanes)
      } else if (single) c.setXmm32(c.library.f32_compare(c.cpu, predicate, c.xmm32(0, 0), c.xmm32(1, 0)))
      else c.setXmm64(c.library.f64_compare(c.cpu, predicate, c.xmm64(0, 0), c.xmm64(1, 0)))
    })
  }
  const round = { ps: 0x08, pd: 0x09, ss: 0x0a, sd: 0x0b }[suffix]
  for (const control of [0, 1, 2, 3, 4, 8, 9, 10, 11, 12]) {
    sse(`round${suffix} ${control}`, [0x66, 0x0f, 0x3a, round, 0xc1, control], operands, (c) => {
      if (packed) {
        if (single) c.library.f32x_round(c.cpu, control, c.cpu + XMM0, c.cpu + XMM1, lanes)
        else c.library.f64x_round(c.cpu, control, c.cpu + XMM0, c.cpu + XMM1, lanes)
      } else if (single) c.setXmm32(c.library.f32_round(c.cpu, control, c.xmm32(1, 0)))
      else c.setXmm64(c.library.f64_round(c.cpu, control, c.xmm64(1, 0)))
    })
  }
}

for (const [single, prefix, suffix] of [
  [true, 0xf2, 'ps'],
  [false, 0x66, 'pd'],
] as const) {
  for (const [name, opcode, key] of [
    ['hadd', 0x7c, 'horizontalAdd'],
    ['hsub', 0x7d, 'horizontalSubtract'],
    ['addsub', 0xd0, 'addSubtract'],
  ] as const) {
    sse(name + suffix, [prefix, 0x0f, opcode, 0xc1], single ? 'f32x4' : 'f64x2', (c) => {
      if (single) c.library.f32x_arith(c.cpu, SSE_OPERATION[key], c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1, 4)
      else c.library.f64x_arith(c.cpu, SSE_OPERATION[key], c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1, 2)
    })
  }
  for (const control of single ? [0xff, 0xf1, 0x73, 0x3f, 0x51, 0x9a, 0x00] : [0x33, 0x31, 0x13, 0x22, 0x01]) {
    sse(
      `dp${suffix} ${control}`,
      [0x66, 0x0f, 0x3a, single ? 0x40 : 0x41, 0xc1, control],
      single ? 'f32x4' : 'f64x2',
      (c) => {
        if (single) c.library.f32x_dot(c.cpu, control, c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1)
        else c.library.f64x_dot(c.cpu, control, c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1)
      },
    )
  }
}

// The predicates that only VEX encodes.
for (let predicate = 8; predicate < 32; predicate++) {
  const avx = { feature: 'avx' }
  sse(
    `vcmpps ${predicate}`,
    [0xc5, 0xf8, 0xc2, 0xc1, predicate],
    'f32x4',
    (c) => void c.library.f32x_compare(c.cpu, predicate, c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1, 4),
    avx,
  )
  sse(
    `vcmppd ${predicate}`,
    [0xc5, 0xf9, 0xc2, 0xc1, predicate],
    'f64x2',
    (c) => void c.library.f64x_compare(c.cpu, predicate, c.cpu + XMM0, c.cpu + XMM0, c.cpu + XMM1, 2),
    avx,
  )
}

for (const [name, opcode, call] of [
  ['rcp', 0x53, 'f32_reciprocal'],
  ['rsqrt', 0x52, 'f32_reciprocal_root'],
] as const) {
  sse(
    `${name}ps`,
    [0x0f, opcode, 0xc1],
    'f32x4',
    (c) => {
      for (let lane = 0; lane < 4; lane++) c.setSlot(XMM0 + lane * 4, c.library[call](c.xmm32(1, lane)))
    },
    { approximate: true },
  )
}

for (const [name, opcode, signalling] of [
  ['comis', 0x2f, 1],
  ['ucomis', 0x2e, 0],
] as const) {
  sse(`${name}s`, [0x0f, opcode, 0xc1], 'f32x4', (c) =>
    c.setFlags(c.library.f32_order(c.cpu, c.xmm32(0, 0), c.xmm32(1, 0), signalling)),
  )
  sse(`${name}d`, [0x66, 0x0f, opcode, 0xc1], 'f64x2', (c) =>
    c.setFlags(c.library.f64_order(c.cpu, c.xmm64(0, 0), c.xmm64(1, 0), signalling)),
  )
}

for (const bits of [32, 64]) {
  const rex = bits === 64 ? [0x48] : []
  for (const [name, opcode, truncate] of [
    ['cvt', 0x2d, 0],
    ['cvtt', 0x2c, 1],
  ] as const) {
    sse(`${name}ss2si ${bits}`, [0xf3, ...rex, 0x0f, opcode, 0xc9], 'f32x4', (c) =>
      c.setRcx(c.library.f32_to_integer(c.cpu, c.xmm32(1, 0), bits, truncate), bits),
    )
    sse(`${name}sd2si ${bits}`, [0xf2, ...rex, 0x0f, opcode, 0xc9], 'f64x2', (c) =>
      c.setRcx(c.library.f64_to_integer(c.cpu, c.xmm64(1, 0), bits, truncate), bits),
    )
  }
  const source = (c: Call): bigint => (bits === 64 ? c.rcx() : BigInt.asIntN(32, c.rcx()))
  sse(`cvtsi2ss ${bits}`, [0xf3, ...rex, 0x0f, 0x2a, 0xc1], 'integer', (c) =>
    c.setXmm32(c.library.f32_from_integer(c.cpu, source(c))),
  )
  sse(`cvtsi2sd ${bits}`, [0xf2, ...rex, 0x0f, 0x2a, 0xc1], 'integer', (c) =>
    c.setXmm64(c.library.f64_from_integer(c.cpu, source(c))),
  )
}
sse('cvtss2sd', [0xf3, 0x0f, 0x5a, 0xc1], 'f32x4', (c) => c.setXmm64(c.library.f64_from_f32(c.cpu, c.xmm32(1, 0))))
sse('cvtsd2ss', [0xf2, 0x0f, 0x5a, 0xc1], 'f64x2', (c) => c.setXmm32(c.library.f32_from_f64(c.cpu, c.xmm64(1, 0))))

const packedConversion = (
  name: string,
  code: number[],
  operands: Operands,
  key: keyof typeof SSE_CONVERSION,
  lanes: number,
): void =>
  sse(name, code, operands, (c) => {
    const unmasked = c.library.x_convert(c.cpu, SSE_CONVERSION[key], c.cpu + XMM0, c.cpu + XMM1, lanes)
    // From two doubles to two words: the upper half is cleared.
    if (!unmasked && operands === 'f64x2') c.clearUpper()
  })
packedConversion('cvtps2dq', [0x66, 0x0f, 0x5b, 0xc1], 'f32x4', 'f32ToInteger', 4)
packedConversion('cvttps2dq', [0xf3, 0x0f, 0x5b, 0xc1], 'f32x4', 'f32ToIntegerTruncating', 4)
packedConversion('cvtpd2dq', [0xf2, 0x0f, 0xe6, 0xc1], 'f64x2', 'f64ToInteger', 2)
packedConversion('cvttpd2dq', [0x66, 0x0f, 0xe6, 0xc1], 'f64x2', 'f64ToIntegerTruncating', 2)
packedConversion('cvtdq2ps', [0x0f, 0x5b, 0xc1], 'f32x4', 'integerToF32', 4)
packedConversion('cvtdq2pd', [0xf3, 0x0f, 0xe6, 0xc1], 'f32x4', 'integerToF64', 2)
packedConversion('cvtps2pd', [0x0f, 0x5a, 0xc1], 'f32x4', 'f32ToF64', 2)
packedConversion('cvtpd2ps', [0x66, 0x0f, 0x5a, 0xc1], 'f64x2', 'f64ToF32', 2)
