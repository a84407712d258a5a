/** Moves, logic and shuffles of SSE, SSE2 and SSE3 on XMM registers. Arithmetic is in sse-arithmetic.ts, integers in packed.ts. */
import { S } from '../state/layout.ts'
import { type Semantics, type Value } from './builder.ts'
import { VECTOR } from '../state/register-bits.ts'
import {
  binary, fieldControl, high64, known, low64, operation, pair, shuffleLanes, unary, widen, type LaneBits,
} from './vector.ts'

/** Whole vectors: MOVAPS, MOVUPS, MOVDQA, MOVNTPS, ... Whether the address must be aligned is the row's business. */
const move: Semantics = (_b, dst, src) => dst!.write(src!.read())

/** MOVSS, MOVSD: a load clears the rest of the register, a move between registers does not change it. */
const moveScalar: Semantics = (b, dst, src) => {
  const value = src!.read()
  if (src!.isMemory) b.writeVector('reg', widen(b, value))
  else dst!.write(value)
}

/** MOVLPS, MOVLPD, MOVHLPS: the low half of the destination. */
const moveLow =
  (from: 'low' | 'high'): Semantics =>
  (b, dst, src) => {
    if (from === 'high') dst!.write(high64(b, b.readVector('rm')))
    else dst!.write(src!.read())
  }

/** MOVHPS, MOVHPD, MOVLHPS: the high half of the register. */
const moveHigh: Semantics = (b, dst, src) => {
  if (dst!.isMemory) return dst!.write(high64(b, b.readVector('reg')))
  const value = src!.read()
  b.writeVector('reg', b.lane('i64x2.replace_lane', [1], b.readVector('reg'), value))
}

const signMask = (bits: 32 | 64): Semantics => (b, dst) => dst!.write(b.extendU(b.op(bits === 32 ? 'i32x4.bitmask' : 'i64x2.bitmask', b.readVector('rm'))))

const interleave = (bits: LaneBits, order: readonly number[]): Semantics => binary((b, left, right) => shuffleLanes(b, bits, left, right, order))
const duplicate = (bits: LaneBits, order: readonly number[]): Semantics => unary((b, source) => shuffleLanes(b, bits, source, source, order))

const movddup: Semantics = (b, dst, src) => dst!.write(b.op('i64x2.splat', src!.read()))

// ---------------------------------------------------------------------- shuffles by immediates

const twoBits = (immediate: number, n: number): number => (immediate >> (2 * n)) & 3

const pshufd: Semantics = (b, dst, src, immediate) => {
  const source = src!.read()
  const by = immediate!.read()
  const n = known(by)
  if (n !== undefined) return dst!.write(shuffleLanes(b, 32, source, source, [0, 1, 2, 3].map((lane) => twoBits(n, lane))))
  dst!.write(b.op('i8x16.swizzle', source, fieldControl(b, 32, by, [0, 1, 2, 3], [0, 0, 0, 0])))
}

/** PSHUFLW, PSHUFHW: four words of one half; the other half stays. */
const shuffleHalf =
  (half: 0 | 1): Semantics =>
  (b, dst, src, immediate) => {
    const source = src!.read()
    const by = immediate!.read()
    const n = known(by)
    const inside = (lane: number) => lane >> 2 === half
    const words = [0, 1, 2, 3, 4, 5, 6, 7]
    if (n !== undefined) {
      const order = words.map((lane) => (inside(lane) ? 4 * half + twoBits(n, lane & 3) : lane))
      return dst!.write(shuffleLanes(b, 16, source, source, order))
    }
    const fields = words.map((lane) => (inside(lane) ? lane & 3 : undefined))
    const start = words.map((lane) => (inside(lane) ? 8 * half : 2 * lane))
    dst!.write(b.op('i8x16.swizzle', source, fieldControl(b, 16, by, fields, start)))
  }

/** SHUFPS: two lanes of the destination, then two of the source. Lanes of the other operand are kept out of range: zero. */
const shufps: Semantics = (b, dst, src, immediate) => {
  const right = src!.read()
  const left = dst!.read()
  const by = immediate!.read()
  const n = known(by)
  if (n !== undefined) {
    return dst!.write(shuffleLanes(b, 32, left, right, [0, 1, 2, 3].map((lane) => twoBits(n, lane) + (lane >> 1) * 4)))
  }
  const low = b.op('i8x16.swizzle', left, fieldControl(b, 32, by, [0, 1, undefined, undefined], [0, 0, 16, 16]))
  const high = b.op('i8x16.swizzle', right, fieldControl(b, 32, by, [undefined, undefined, 2, 3], [16, 16, 0, 0]))
  dst!.write(b.op('v128.or', low, high))
}

const shufpd: Semantics = (b, dst, src, immediate) => {
  const right = src!.read()
  const left = dst!.read()
  const by = immediate!.read()
  const pick = (vector: Value, bit: number) => b.select(b.wrap(b.and(by, 1 << bit)), high64(b, vector), low64(b, vector))
  dst!.write(pair(b, pick(left, 0), pick(right, 1)))
}

// ---------------------------------------------------------------------- MXCSR

/** Bits above these are reserved: MXCSR_MASK as FXSAVE shows it. */
const MXCSR_MASK = 0xffff

const ldmxcsr: Semantics = (b, src) => {
  const value = b.wrap(src!.read())
  b.raiseIf(b.and(value, ~MXCSR_MASK), VECTOR.GP)
  b.setSlot(S.mxcsr, value)
}
const stmxcsr: Semantics = (b, dst) => dst!.write(b.extendU(b.slot(S.mxcsr, 'i32')))

const moves = ['movaps', 'movups', 'movapd', 'movupd', 'movdqa', 'movdqu', 'movntps', 'movntpd', 'movntdq', 'movntdqa', 'lddqu']

const logic = (mnemonic: string, semantics: Semantics) => [
  [`${mnemonic}ps`, semantics],
  [`${mnemonic}pd`, semantics],
]

export const sse: Record<string, Semantics> = {
  ...Object.fromEntries(moves.map((name) => [name, move])),
  ...Object.fromEntries([
    ...logic('and', operation('v128.and')),
    ...logic('or', operation('v128.or')),
    ...logic('xor', operation('v128.xor')),
    ...logic('andn', binary((b, left, right) => b.op('v128.andnot', right, left))),
  ]),
  movss: moveScalar,
  movsd: moveScalar,
  movlps: moveLow('low'),
  movlpd: moveLow('low'),
  movhlps: moveLow('high'),
  movhps: moveHigh,
  movhpd: moveHigh,
  movlhps: moveHigh,
  movmskps: signMask(32),
  movmskpd: signMask(64),
  unpcklps: interleave(32, [0, 4, 1, 5]),
  unpckhps: interleave(32, [2, 6, 3, 7]),
  unpcklpd: interleave(64, [0, 2]),
  unpckhpd: interleave(64, [1, 3]),
  punpcklqdq: interleave(64, [0, 2]),
  punpckhqdq: interleave(64, [1, 3]),
  movsldup: duplicate(32, [0, 0, 2, 2]),
  movshdup: duplicate(32, [1, 1, 3, 3]),
  movddup,
  pshufd,
  pshuflw: shuffleHalf(0),
  pshufhw: shuffleHalf(1),
  shufps,
  shufpd,
  ldmxcsr,
  stmxcsr,
}
