/** One element of an SSE instruction, in an environment already set. Leaves its exceptions in `raised`. */
import {
  compareFinite,
  denormalStops,
  denormalStopsUnary,
  operate,
  propagateFirst,
  quietLeft,
  squareRoot,
} from './arithmetic'
import {
  DOUBLE_MAXIMUM,
  DOUBLE_MINIMUM,
  left32,
  left64,
  leftInteger,
  result32,
  result64,
  right32,
  right64,
  SINGLE_MAXIMUM,
  SINGLE_MINIMUM,
} from './format'
import {
  beginLane,
  copyLeftToResult,
  denormalsAreZero,
  IE,
  INFINITY,
  leftClass,
  leftSign,
  NORMAL,
  PE,
  QNAN,
  raise,
  resultClass,
  rightClass,
  rounding,
  setInfinity,
  SNAN,
  stopped,
  TRUNCATE,
} from './number'
import { roundResult, roundToIntegral, toInteger } from './round'

// The arithmetic operations beyond those of arithmetic.ts.
export const MINIMUM: i32 = 2
export const MAXIMUM: i32 = 3
/** Of the left operand. */
export const SQUARE_ROOT: i32 = 8

function round32(): u32 {
  if (resultClass == NORMAL && !stopped()) roundResult(24, SINGLE_MINIMUM, SINGLE_MAXIMUM)
  return result32()
}

function round64(): u64 {
  if (resultClass == NORMAL && !stopped()) roundResult(53, DOUBLE_MINIMUM, DOUBLE_MAXIMUM)
  return result64()
}

/** The operation on the loaded operands, up to rounding. */
function compute(operation: i32): void {
  if (operation == SQUARE_ROOT) {
    if (leftClass >= QNAN) quietLeft()
    else squareRoot()
  } else if (leftClass >= QNAN || rightClass >= QNAN) propagateFirst()
  else operate(operation)
}

/** MIN, MAX: whether the first operand is the result. Any NaN is invalid, and the second operand then returned. */
function takesLeft(operation: i32): bool {
  if (leftClass >= QNAN || rightClass >= QNAN) {
    raise(IE)
    return false
  }
  denormalStops()
  return compareFinite() == (operation == MINIMUM ? -1 : 1)
}

function flushed32(bits: u32): u32 {
  return denormalsAreZero && !(bits & 0x7f800000) ? bits & 0x80000000 : bits
}

function flushed64(bits: u64): u64 {
  return denormalsAreZero && !(bits & 0x7ff0000000000000) ? bits & 0x8000000000000000 : bits
}

export function arithmetic32(operation: i32, left: u32, right: u32): u32 {
  beginLane()
  left32(left)
  right32(right)
  if (operation == MINIMUM || operation == MAXIMUM) return takesLeft(operation) ? flushed32(left) : flushed32(right)
  compute(operation)
  return round32()
}

export function arithmetic64(operation: i32, left: u64, right: u64): u64 {
  beginLane()
  left64(left)
  right64(right)
  if (operation == MINIMUM || operation == MAXIMUM) return takesLeft(operation) ? flushed64(left) : flushed64(right)
  compute(operation)
  return round64()
}

export const LESS: i32 = 1
export const EQUAL: i32 = 2
export const GREATER: i32 = 4
export const UNORDERED: i32 = 8

/** The relation of the loaded operands. A quiet NaN is invalid where the comparison signals. */
export function relation(signalling: bool): i32 {
  if (leftClass >= QNAN || rightClass >= QNAN) {
    if (signalling || leftClass >= SNAN || rightClass >= SNAN) raise(IE)
    return UNORDERED
  }
  denormalStops()
  return LESS << (compareFinite() + 1)
}

/** Relations that satisfy each of the first 16 predicates, a hexadecimal digit each. (SDM Vol. 2A, "CMPPD", comparison predicates) */
const PREDICATES: u64 = 0xf4650b9a7ced8312

function satisfies(predicate: u32): bool {
  const kind = predicate & 3
  const signalling = (kind == 1 || kind == 2) != (predicate >> 4 != 0)
  return (u32(PREDICATES >> ((predicate & 15) << 2)) & relation(signalling)) != 0
}

export function compare32(predicate: u32, left: u32, right: u32): u32 {
  beginLane()
  left32(left)
  right32(right)
  return satisfies(predicate) ? 0xffffffff : 0
}

export function compare64(predicate: u32, left: u64, right: u64): u64 {
  beginLane()
  left64(left)
  right64(right)
  return satisfies(predicate) ? 0xffffffffffffffff : 0
}

/** ROUNDPS and its kin: bit 2 of the control takes the mode from MXCSR, bit 3 keeps precision quiet. (SDM Vol. 2B, "ROUNDPD") */
function integral(control: u32): void {
  if (leftClass >= QNAN) quietLeft()
  else if (leftClass == INFINITY) setInfinity(leftSign)
  else if (roundToIntegral(control & 4 ? rounding : i32(control & 3)) && !(control & 8)) raise(PE)
}

export function integral32(control: u32, bits: u32): u32 {
  beginLane()
  left32(bits)
  integral(control)
  return result32()
}

export function integral64(control: u32, bits: u64): u64 {
  beginLane()
  left64(bits)
  integral(control)
  return result64()
}

export function integerFrom32(bits: u32, size: u32, truncate: bool): i64 {
  beginLane()
  left32(bits)
  return toInteger(size, truncate ? TRUNCATE : rounding)
}

export function integerFrom64(bits: u64, size: u32, truncate: bool): i64 {
  beginLane()
  left64(bits)
  return toInteger(size, truncate ? TRUNCATE : rounding)
}

export function integerTo32(value: i64): u32 {
  beginLane()
  leftInteger(value)
  copyLeftToResult()
  return round32()
}

export function integerTo64(value: i64): u64 {
  beginLane()
  leftInteger(value)
  copyLeftToResult()
  return round64()
}

function convert(): void {
  if (leftClass >= QNAN) quietLeft()
  else {
    denormalStopsUnary()
    copyLeftToResult()
  }
}

export function widen(bits: u32): u64 {
  beginLane()
  left32(bits)
  convert()
  return result64()
}

export function narrow(bits: u64): u32 {
  beginLane()
  left64(bits)
  convert()
  return round32()
}

/** 1/x for RCPPS: rounded to nearest, denormals as zeros on both sides, no exceptions. Exact to 0.5 units, well within 1.5 * 2^-12. */
export function reciprocal32(bits: u32): u32 {
  const sign = bits & 0x80000000
  const biased = (bits >> 23) & 0xff
  if (biased == 0) return sign | 0x7f800000
  if (biased == 0xff) return bits << 9 ? bits | 0x400000 : sign
  // From 2^126 on the result is tiny.
  if (biased >= 0xfd) return sign
  return reinterpret<u32>(f32(1.0) / reinterpret<f32>(bits))
}

/** 1/sqrt(x) for RSQRTPS: as above; a negative number gives the indefinite QNaN. */
export function reciprocalRoot32(bits: u32): u32 {
  const sign = bits & 0x80000000
  const biased = (bits >> 23) & 0xff
  if (biased == 0) return sign | 0x7f800000
  if (biased == 0xff && bits << 9) return bits | 0x400000
  if (sign) return 0xffc00000
  return reinterpret<u32>(f32(1.0 / sqrt<f64>(f64(reinterpret<f32>(bits)))))
}
