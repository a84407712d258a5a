/**
 * SSE arithmetic's quick paths: when wasm's own operation gives the processor's result and raises nothing new. Everything else goes to the
 * exact library (see float/). No instruction.
 */
import { S } from '../state/layout.ts'
import { type Operand, type SemanticsBuilder, type Value } from './builder.ts'
import { CR4, VECTOR } from '../state/register-bits.ts'
import { every, handOver, zero } from './vector.ts'

/** A format of the numbers in XMM registers. */
export interface Format {
  readonly bits: 32 | 64
  readonly count: 4 | 2
  /** wasm's names. */
  readonly float: 'f32' | 'f64'
  readonly int: 'i32' | 'i64'
  readonly floats: 'f32x4' | 'f64x2'
  readonly ints: 'i32x4' | 'i64x2'
  /** Bits of the smallest normal number and of infinity. */
  readonly smallest: bigint
  readonly infinity: bigint
}
export const SINGLE: Format = {
  bits: 32,
  count: 4,
  float: 'f32',
  int: 'i32',
  floats: 'f32x4',
  ints: 'i32x4',
  smallest: 0x0080_0000n,
  infinity: 0x7f80_0000n,
}
export const DOUBLE: Format = {
  bits: 64,
  count: 2,
  float: 'f64',
  int: 'i64',
  floats: 'f64x2',
  ints: 'i64x2',
  smallest: 0x0010_0000_0000_0000n,
  infinity: 0x7ff0_0000_0000_0000n,
}

// ---------------------------------------------------------------------- MXCSR

/** All exceptions masked, round to nearest, neither FTZ nor DAZ, and PE already set: an inexact result changes no state. */
const USUAL = { mask: 0xffe0, value: 0x1fa0 } as const
export function usual(b: SemanticsBuilder): Value {
  return b.eq(b.and(b.slot(S.mxcsr, 'i32'), USUAL.mask), USUAL.value)
}

/** The same with PE still clear: a result must be exact to change nothing. */
const usualButExact = (b: SemanticsBuilder): Value => b.eq(b.and(b.slot(S.mxcsr, 'i32'), USUAL.mask | 0x20), USUAL.value & ~0x20)


/** After a call of the exact library: an unmasked exception ends the instruction before it has written anything. */
export function raiseUnmasked(b: SemanticsBuilder): void {
  b.ifUnlikely(b.slot(S.floatException, 'i32'), () => {
    b.setSlot(S.floatException, b.i32(0))
    b.if(
      b.and(b.slot(S.cr4, 'i32'), CR4.osxmmexcpt),
      () => b.raise(VECTOR.XM),
      () => b.raise(VECTOR.UD),
    )
  })
}

// ---------------------------------------------------------------------- scalars: bits in, i32 tests out

/** Bits of a scalar operand, i32 or i64 by the format. */
export function bitsOf(b: SemanticsBuilder, f: Format, operand: Operand): Value {
  if (operand.isMemory) return f.bits === 32 ? b.wrap(operand.read()) : operand.read()
  return lowLane(b, f, b.readVector(operand.spec.kind === 'V' ? 'reg' : 'rm'))
}
export const lowLane = (b: SemanticsBuilder, f: Format, vector: Value): Value => b.lane(`${f.ints}.extract_lane`, [0], vector)
export const withLowLane = (b: SemanticsBuilder, f: Format, vector: Value, bits: Value): Value => b.lane(`${f.ints}.replace_lane`, [0], vector, bits)
export const asFloat = (b: SemanticsBuilder, f: Format, bits: Value): Value => b.op(`${f.float}.reinterpret_${f.int}`, bits)
export const asBits = (b: SemanticsBuilder, f: Format, value: Value): Value => b.op(`${f.int}.reinterpret_${f.float}`, value)

/** Not a denormal number. */
export const notDenormal = (b: SemanticsBuilder, f: Format, bits: Value): Value => b.geU(b.sub(b.shl(bits, 1), 1), 2n * f.smallest - 1n)
/** Neither infinite nor a NaN. */
export const finite = (b: SemanticsBuilder, f: Format, bits: Value): Value => b.ltU(b.shl(bits, 1), 2n * f.infinity)
/**
 * Normal, and more than the smallest exponent: a result just there may have been rounded up from below, which is an underflow.
 * (SDM Vol. 1, "Numeric Underflow Exception")
 */
export const ordinary = (b: SemanticsBuilder, f: Format, bits: Value): Value =>
  b.ltU(b.sub(b.shl(bits, 1), 4n * f.smallest), 2n * f.infinity - 4n * f.smallest)
export const isZero = (b: SemanticsBuilder, bits: Value): Value => b.eqz(b.shl(bits, 1))
export const notNaN = (b: SemanticsBuilder, f: Format, bits: Value): Value => b.leU(b.shl(bits, 1), 2n * f.infinity)
export const all = (b: SemanticsBuilder, ...conditions: Value[]): Value => conditions.reduce((a, c) => b.and(a, c))

// ---------------------------------------------------------------------- vectors: a mask of the lanes that a quick path cannot do

const magnitude = (b: SemanticsBuilder, f: Format, v: Value): Value => b.op(`${f.floats}.abs`, v)
const bound = (b: SemanticsBuilder, f: Format, bits: bigint): Value => every(b, f.bits, bits)

export const denormals = (b: SemanticsBuilder, f: Format, v: Value): Value =>
  b.op('v128.andnot', b.op(`${f.floats}.lt`, magnitude(b, f, v), bound(b, f, f.smallest)), b.op(`${f.floats}.eq`, v, zero(b)))
export const notFinite = (b: SemanticsBuilder, f: Format, v: Value): Value =>
  b.op('v128.not', b.op(`${f.floats}.lt`, magnitude(b, f, v), bound(b, f, f.infinity)))
export const nans = (b: SemanticsBuilder, f: Format, v: Value): Value => b.op(`${f.floats}.ne`, v, v)
const notOrdinary = (b: SemanticsBuilder, f: Format, v: Value): Value => {
  const size = magnitude(b, f, v)
  const within = b.op('v128.and', b.op(`${f.floats}.gt`, size, bound(b, f, 2n * f.smallest)), b.op(`${f.floats}.lt`, size, bound(b, f, f.infinity)))
  return b.op('v128.not', within)
}
const zeros = (b: SemanticsBuilder, f: Format, v: Value): Value => b.op(`${f.floats}.eq`, v, zero(b))
export const anyOf = (b: SemanticsBuilder, ...masks: Value[]): Value => masks.reduce((a, m) => b.op('v128.or', a, m))
export const none = (b: SemanticsBuilder, mask: Value): Value => b.eqz(b.op('v128.any_true', mask))

// ---------------------------------------------------------------------- arithmetic

/** What tells whether a result is safe: sums cannot underflow, extremes are not rounded. */
type Kind = 'sum' | 'product' | 'quotient' | 'root' | 'extreme'
export interface Arithmetic {
  readonly kind: Kind
  /** wasm's operation; extremes: the comparison of left with right that selects left. */
  readonly name: string
  /** The exact library's number (see float/library.ts). */
  readonly number: number
}

/** Whether left * right fits the significand: together their significands have bits enough of trailing zeros. Doubles, normal. */
function fitsProduct(b: SemanticsBuilder, left: Value, right: Value): Value {
  const zerosOf = (bits: Value) => b.ctz(b.or(bits, DOUBLE.smallest))
  return b.geU(b.add(zerosOf(left), zerosOf(right)), 53)
}

/** Whether wasm's rounded result is the exact one; for operands and results that are normal. May say no where it is. */
function isExact(b: SemanticsBuilder, f: Format, op: Arithmetic, left: Value, right: Value, result: Value): Value {
  const float = (operation: string, ...args: Value[]) => b.op(`${f.float}.${operation}`, ...args)
  const x = asFloat(b, f, left),
    y = asFloat(b, f, right),
    r = asFloat(b, f, result)
  if (op.kind === 'sum') {
    // What rounding lost is itself a number of the format. (Knuth, TAOCP vol. 2, "Accuracy of Floating Point Arithmetic": TwoSum)
    const addend = op.name === 'sub' ? float('neg', y) : y
    const part = float('sub', r, x)
    const lost = float('add', float('sub', x, float('sub', r, part)), float('sub', addend, part))
    return float('eq', lost, float('sub', lost, lost))
  }
  // The product that must come out exactly, of factors given as bits.
  const [factor, other, product] =
    op.kind === 'product' ? [left, right, result] : op.kind === 'quotient' ? [result, right, left] : [result, result, right]
  if (f.bits === 32) {
    // Two singles multiply exactly in double.
    const wide = (bits: Value) => b.op('f64.promote_f32', asFloat(b, f, bits))
    return b.op('f64.eq', b.op('f64.mul', wide(factor!), wide(other!)), wide(product!))
  }
  return b.and(fitsProduct(b, factor!, other!), float('eq', float('mul', asFloat(b, f, factor!), asFloat(b, f, other!)), asFloat(b, f, product!)))
}

/** left op right on bits; the result is given to `use` once in each of two branches. */
export function scalarArithmetic(b: SemanticsBuilder, f: Format, op: Arithmetic, left: Value, right: Value, use: (bits: Value) => void): void {
  const x = asFloat(b, f, left),
    y = asFloat(b, f, right)
  const result =
    op.kind === 'extreme'
      ? b.select(b.op(`${f.float}.${op.name}`, x, y), left, right)
      : asBits(b, f, op.kind === 'root' ? b.op(`${f.float}.sqrt`, y) : b.op(`${f.float}.${op.name}`, x, y))
  const operands = op.kind === 'root' ? [notDenormal(b, f, right)] : [notDenormal(b, f, left), notDenormal(b, f, right)]
  const quick =
    op.kind === 'extreme'
      ? all(b, ...operands, notNaN(b, f, left), notNaN(b, f, right))
      : all(b, ...operands, op.kind === 'sum' || op.kind === 'root' ? finite(b, f, result) : ordinary(b, f, result), usual(b))
  const exact = () => {
    const bits = b.call(f.int, `${f.float}_arith`, b.cpu, b.i32(op.number), op.kind === 'root' ? right : left, right)
    raiseUnmasked(b)
    use(bits)
  }
  b.ifUnlikely(
    b.eqz(quick),
    () => {
      if (op.kind === 'extreme') return exact()
      const alike = op.kind === 'root' ? [ordinary(b, f, right)] : [ordinary(b, f, left), ordinary(b, f, right)]
      const plain = all(b, ...alike, ordinary(b, f, result), usualButExact(b))
      b.if(plain, () => b.if(isExact(b, f, op, left, right, result), () => use(result), exact), exactOrZero)
    },
    () => use(result),
  )
  function exactOrZero(): void {
    if (op.kind !== 'product' && op.kind !== 'quotient') return exact()
    // Zero times a finite number, or by one: exactly zero, in any state.
    const zeroOperand = op.kind === 'product' ? b.or(isZero(b, left), isZero(b, right)) : isZero(b, left)
    b.if(all(b, zeroOperand, isZero(b, result), ...operands), () => use(result), exact)
  }
}

/** Lanes whose result is not proven exact. The error of an operation is computed by the format's own arithmetic, without rounding. */
function inexactLanes(b: SemanticsBuilder, f: Format, op: Arithmetic, left: Value, right: Value, result: Value): Value {
  const floats = (operation: string, ...args: Value[]) => b.op(`${f.floats}.${operation}`, ...args)
  if (op.kind === 'sum') {
    // TwoSum, as for scalars.
    const addend = op.name === 'sub' ? floats('neg', right) : right
    const part = floats('sub', result, left)
    return floats('ne', floats('add', floats('sub', left, floats('sub', result, part)), floats('sub', addend, part)), zero(b))
  }
  // TwoProduct: factors are split in halves whose products are exact. (Dekker: "A Floating-Point Technique for Extending the Available
  // Precision", 1971) Magnitudes are kept where no part over- or underflows.
  const [x, y, product] = op.kind === 'product' ? [left, right, result] : op.kind === 'quotient' ? [result, right, left] : [result, result, right]
  const { splitter, least, most } = f.bits === 64 ? SPLIT_DOUBLE : SPLIT_SINGLE
  const split = (v: Value): [Value, Value] => {
    const scaled = floats('mul', v, bound(b, f, splitter))
    const high = floats('sub', scaled, floats('sub', scaled, v))
    return [high, floats('sub', v, high)]
  }
  const [xHigh, xLow] = split(x!)
  const [yHigh, yLow] = split(y!)
  const rounded = floats('mul', x!, y!)
  const error = floats(
    'add',
    floats('add', floats('add', floats('sub', floats('mul', xHigh, yHigh), rounded), floats('mul', xHigh, yLow)), floats('mul', xLow, yHigh)),
    floats('mul', xLow, yLow),
  )
  const outside = (v: Value): Value => {
    const size = magnitude(b, f, v)
    const within = b.op('v128.and', floats('gt', size, bound(b, f, least)), floats('lt', size, bound(b, f, most)))
    return b.op('v128.not', b.op('v128.or', within, zeros(b, f, v)))
  }
  return anyOf(b, floats('ne', error, zero(b)), floats('ne', rounded, product!), outside(x!), outside(y!))
}

/** 2^27 + 1 and 2^12 + 1, and the magnitudes between which splitting is safe: 2^±400 and 2^±40, as bits. */
const SPLIT_DOUBLE = { splitter: 0x41a0_0000_0200_0000n, least: 0x26f0_0000_0000_0000n, most: 0x58f0_0000_0000_0000n } as const
const SPLIT_SINGLE = { splitter: 0x4580_0800n, least: 0x2b80_0000n, most: 0x5380_0000n } as const

/** The same on all lanes. `operate` gives wasm's result where it is not simply the operation's name. */
export function vectorArithmetic(
  b: SemanticsBuilder,
  f: Format,
  op: Arithmetic,
  left: Value,
  right: Value,
  use: (vector: Value) => void,
  exactOperands: { left: Value; right: Value } = { left: op.kind === 'root' ? right : left, right },
): void {
  const result =
    op.kind === 'extreme'
      ? b.op('v128.bitselect', left, right, b.op(`${f.floats}.${op.name}`, left, right))
      : op.kind === 'root'
        ? b.op(`${f.floats}.sqrt`, right)
        : b.op(`${f.floats}.${op.name}`, left, right)
  const operands = op.kind === 'root' ? denormals(b, f, right) : anyOf(b, denormals(b, f, left), denormals(b, f, right))
  let slow: Value
  if (op.kind === 'extreme') slow = anyOf(b, operands, nans(b, f, left), nans(b, f, right))
  else if (op.kind === 'sum' || op.kind === 'root') slow = anyOf(b, operands, notFinite(b, f, result))
  else {
    const zeroOperand = op.kind === 'product' ? anyOf(b, zeros(b, f, left), zeros(b, f, right)) : zeros(b, f, left)
    const exactZero = b.op('v128.and', zeroOperand, zeros(b, f, result))
    slow = anyOf(b, operands, b.op('v128.andnot', notOrdinary(b, f, result), exactZero))
  }
  const exact = () => use(exactVector(b, `${f.float}x_arith`, op.number, exactOperands.left, exactOperands.right, f.count))
  const safe = none(b, slow)
  if (op.kind === 'extreme') return b.if(safe, () => use(result), exact)
  b.if(
    b.and(safe, usual(b)),
    () => use(result),
    () => b.if(b.and(safe, usualButExact(b)), () => b.if(none(b, inexactLanes(b, f, op, left, right, result)), () => use(result), exact), exact),
  )
}

/** A routine of the exact library on whole vectors: (cpu, number, destination, left, right, lanes). */
export function exactVector(
  b: SemanticsBuilder,
  routine: string,
  number: number | Value,
  left: Value,
  right: Value,
  count: number | undefined,
): Value {
  const at = handOver(b, left, right)
  const selector = typeof number === 'number' ? b.i32(number) : number
  b.call('i32', routine, b.cpu, selector, at.left, at.left, at.right, ...(count === undefined ? [] : [b.i32(count)]))
  raiseUnmasked(b)
  return b.slot(S.temp, 'v128')
}
/** The same with one operand: (cpu, number, destination, source, lanes). Bytes that the routine does not write are zero. */
export function exactUnary(b: SemanticsBuilder, routine: string, number: number | Value, source: Value, count: number): Value {
  const at = handOver(b, zero(b), source)
  const selector = typeof number === 'number' ? b.i32(number) : number
  b.call('i32', routine, b.cpu, selector, at.left, at.right, b.i32(count))
  raiseUnmasked(b)
  return b.slot(S.temp, 'v128')
}
