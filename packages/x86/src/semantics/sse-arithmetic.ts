/** SSE to SSE4.1 arithmetic on single and double precision: sums to roots, comparisons, rounding, dot products. */
import type { Semantics, SemanticsBuilder, Value } from './builder.ts'
import { SSE_OPERATION } from '../float/library.ts'
import {
  all, anyOf, bitsOf, denormals, DOUBLE, exactUnary, exactVector, lowLane, nans, none, notDenormal, notNaN, raiseUnmasked, scalarArithmetic,
  SINGLE, asFloat, vectorArithmetic, withLowLane, type Arithmetic, type Format,
} from './sse-number.ts'
import { lanes, shuffleLanes, splat } from './vector.ts'

const ARITHMETIC: Readonly<Record<string, Arithmetic>> = {
  add: { kind: 'sum', name: 'add', number: SSE_OPERATION.add },
  sub: { kind: 'sum', name: 'sub', number: SSE_OPERATION.subtract },
  mul: { kind: 'product', name: 'mul', number: SSE_OPERATION.multiply },
  div: { kind: 'quotient', name: 'div', number: SSE_OPERATION.divide },
  min: { kind: 'extreme', name: 'lt', number: SSE_OPERATION.minimum },
  max: { kind: 'extreme', name: 'gt', number: SSE_OPERATION.maximum },
  sqrt: { kind: 'root', name: 'sqrt', number: SSE_OPERATION.squareRoot },
}

const vector =
  (f: Format, op: Arithmetic): Semantics =>
  (b, dst, src) => {
    const right = src!.read()
    vectorArithmetic(b, f, op, dst!.read(), right, (result) => dst!.write(result))
  }

const scalar =
  (f: Format, op: Arithmetic): Semantics =>
  (b, _dst, src) => {
    const right = bitsOf(b, f, src!)
    const whole = b.readVector('reg')
    scalarArithmetic(b, f, op, lowLane(b, f, whole), right, (bits) => b.writeVector('reg', withLowLane(b, f, whole, bits)))
  }

/** HADDPS and similar: adjacent lanes, the destination's pairs first. */
const horizontal =
  (f: Format, op: Arithmetic): Semantics =>
  (b, dst, src) => {
    const right = src!.read()
    const left = dst!.read()
    const every = Array.from({ length: f.count }, (_, n) => 2 * n)
    const even = shuffleLanes(b, f.bits, left, right, every)
    const odd = shuffleLanes(b, f.bits, left, right, every.map((n) => n + 1))
    vectorArithmetic(b, f, op, even, odd, (result) => dst!.write(result))
  }

/** ADDSUBPS, ADDSUBPD: even lanes are subtracted, that is, added with the other sign; which for a NaN would show. */
const addSubtract =
  (f: Format): Semantics =>
  (b, dst, src) => {
    const right = src!.read()
    const left = dst!.read()
    const sign = 1n << BigInt(f.bits - 1)
    const signs = lanes(b, f.bits, Array.from({ length: f.count }, (_, n) => (n & 1 ? 0n : sign)))
    const op: Arithmetic = { kind: 'sum', name: 'add', number: SSE_OPERATION.addSubtract }
    vectorArithmetic(b, f, op, left, b.op('v128.xor', right, signs), (result) => dst!.write(result), { left, right })
  }

// ---------------------------------------------------------------------- comparisons

/** Bits of a predicate: which of less and equal make it true, and whether the answer is turned round. Unordered is for the exact library. */
function predicate(b: SemanticsBuilder, immediate: Value): { less: Value; equal: Value; negated: Value } {
  const n = b.and(immediate, 7)
  const bit = (value: Value) => b.sub(0, b.and(value, 1))
  return { less: bit(b.shrU(b.add(n, 1), 1)), equal: bit(b.add(n, 1)), negated: bit(b.shrU(n, 2)) }
}

/** CMPPS, CMPPD. */
const compareVector =
  (f: Format): Semantics =>
  (b, dst, src, immediate) => {
    const right = src!.read()
    const left = dst!.read()
    const by = immediate!.read()
    b.ifUnlikely(
      b.eqz(none(b, anyOf(b, denormals(b, f, left), denormals(b, f, right), nans(b, f, left), nans(b, f, right)))),
      () => dst!.write(exactVector(b, `${f.float}x_compare`, b.wrap(b.and(by, 7)), left, right, f.count)),
      () => {
        const p = predicate(b, by)
        const less = b.op('v128.and', b.op(`${f.floats}.lt`, left, right), splat(b, 64, p.less))
        const equal = b.op('v128.and', b.op(`${f.floats}.eq`, left, right), splat(b, 64, p.equal))
        dst!.write(b.op('v128.xor', b.op('v128.or', less, equal), splat(b, 64, p.negated)))
      },
    )
  }

/** CMPSS, CMPSD. */
const compareScalar =
  (f: Format): Semantics =>
  (b, _dst, src, immediate) => {
    const right = bitsOf(b, f, src!)
    const whole = b.readVector('reg')
    const left = lowLane(b, f, whole)
    const by = immediate!.read()
    const narrow = (value: Value) => (f.bits === 32 ? b.wrap(value) : value)
    b.ifUnlikely(
      b.eqz(all(b, notDenormal(b, f, left), notDenormal(b, f, right), notNaN(b, f, left), notNaN(b, f, right))),
      () => {
        const mask = b.call(f.int, `${f.float}_compare`, b.cpu, b.wrap(b.and(by, 7)), left, right)
        raiseUnmasked(b)
        b.writeVector('reg', withLowLane(b, f, whole, mask))
      },
      () => {
        const p = predicate(b, by)
        const x = asFloat(b, f, left), y = asFloat(b, f, right)
        const spread = (condition: Value) => b.sub(0, b.extendU(condition))
        const less = b.and(spread(b.op(`${f.float}.lt`, x, y)), p.less)
        const equal = b.and(spread(b.op(`${f.float}.eq`, x, y)), p.equal)
        b.writeVector('reg', withLowLane(b, f, whole, narrow(b.xor(b.or(less, equal), p.negated))))
      },
    )
  }

/** COMISS and UCOMISS: ZF, PF and CF say unordered, greater, less or equal; OF, AF and SF are cleared. */
const order =
  (f: Format, signalling: 0 | 1): Semantics =>
  (b, _dst, src) => {
    const right = bitsOf(b, f, src!)
    const left = lowLane(b, f, b.readVector('reg'))
    const flags = b.variable(b.i32(0), 'flags')
    b.ifUnlikely(
      b.eqz(all(b, notDenormal(b, f, left), notDenormal(b, f, right), notNaN(b, f, left), notNaN(b, f, right))),
      () => {
        const result = b.call('i32', `${f.float}_order`, b.cpu, left, right, b.i32(signalling))
        raiseUnmasked(b)
        b.assign(flags, result)
      },
      () => {
        const x = asFloat(b, f, left), y = asFloat(b, f, right)
        b.assign(flags, b.or(b.op(`${f.float}.lt`, x, y), b.shl(b.op(`${f.float}.eq`, x, y), 6)))
      },
    )
    const bit = (at: number) => b.and(b.shrU(b.get(flags), at), 1)
    b.setFlag('cf', bit(0))
    b.setFlag('zf', bit(6))
    b.setSignParity(b.i32(0), bit(2))
    b.setFlag('of', 0)
    b.setFlag('af', 0)
  }

// ---------------------------------------------------------------------- rounding, dot products, estimates

const roundVector =
  (f: Format): Semantics =>
  (b, dst, src, immediate) =>
    dst!.write(exactUnary(b, `${f.float}x_round`, b.wrap(immediate!.read()), src!.read(), f.count))

const roundScalar =
  (f: Format): Semantics =>
  (b, _dst, src, immediate) => {
    const value = bitsOf(b, f, src!)
    const result = b.call(f.int, `${f.float}_round`, b.cpu, b.wrap(immediate!.read()), value)
    raiseUnmasked(b)
    b.writeVector('reg', withLowLane(b, f, b.readVector('reg'), result))
  }

const dotProduct =
  (f: Format): Semantics =>
  (b, dst, src, immediate) => {
    const right = src!.read()
    dst!.write(exactVector(b, `${f.float}x_dot`, b.wrap(immediate!.read()), dst!.read(), right, undefined))
  }

/** RCPPS, RSQRTPS and the scalar forms: no exceptions. */
const estimateVector =
  (routine: string): Semantics =>
  (b, dst, src) => {
    const source = src!.read()
    const results = [0, 1, 2, 3].map((lane) => b.call('i32', routine, b.lane('i32x4.extract_lane', [lane], source)))
    const whole = results.slice(1).reduce((v, bits, n) => b.lane('i32x4.replace_lane', [n + 1], v, bits), b.op('i32x4.splat', results[0]!))
    dst!.write(whole)
  }
const estimateScalar =
  (routine: string): Semantics =>
  (b, _dst, src) => {
    const result = b.call('i32', routine, bitsOf(b, SINGLE, src!))
    b.writeVector('reg', withLowLane(b, SINGLE, b.readVector('reg'), result))
  }


const forms = Object.entries(ARITHMETIC).flatMap(([name, op]): [string, Semantics][] => [
  [`${name}ps`, vector(SINGLE, op)],
  [`${name}pd`, vector(DOUBLE, op)],
  [`${name}ss`, scalar(SINGLE, op)],
  [`${name}sd`, scalar(DOUBLE, op)],
])

export const sseArithmetic: Record<string, Semantics> = {
  ...Object.fromEntries(forms),
  haddps: horizontal(SINGLE, ARITHMETIC.add!),
  haddpd: horizontal(DOUBLE, ARITHMETIC.add!),
  hsubps: horizontal(SINGLE, ARITHMETIC.sub!),
  hsubpd: horizontal(DOUBLE, ARITHMETIC.sub!),
  addsubps: addSubtract(SINGLE),
  addsubpd: addSubtract(DOUBLE),
  cmpps: compareVector(SINGLE),
  cmppd: compareVector(DOUBLE),
  cmpss: compareScalar(SINGLE),
  cmpsd: compareScalar(DOUBLE),
  comiss: order(SINGLE, 1),
  comisd: order(DOUBLE, 1),
  ucomiss: order(SINGLE, 0),
  ucomisd: order(DOUBLE, 0),
  roundps: roundVector(SINGLE),
  roundpd: roundVector(DOUBLE),
  roundss: roundScalar(SINGLE),
  roundsd: roundScalar(DOUBLE),
  dpps: dotProduct(SINGLE),
  dppd: dotProduct(DOUBLE),
  rcpps: estimateVector('f32_reciprocal'),
  rcpss: estimateScalar('f32_reciprocal'),
  rsqrtps: estimateVector('f32_reciprocal_root'),
  rsqrtss: estimateScalar('f32_reciprocal_root'),
}
