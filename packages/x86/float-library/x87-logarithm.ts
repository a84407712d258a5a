/** F2XM1, FYL2X, FYL2XP1: whole instructions. */
import { denormalStops, denormalStopsUnary, propagateLarger, quietLeft } from './arithmetic'
import { divideFraction, high, low, multiplyFraction, normalizeFraction, setFraction, shiftFraction } from './fraction'
import {
  INFINITY,
  INTEGER_BIT,
  leftClass,
  leftExponent,
  leftSign,
  leftSignificand,
  NORMAL,
  PE,
  QNAN,
  raise,
  rightClass,
  rightExponent,
  rightSign,
  rightSignificand,
  setInfinity,
  setInvalid,
  setResult,
  setZero,
  ZE,
  ZERO,
} from './number'
import { exponentialSeries, HALF_LOG2E_HIGH, HALF_LOG2E_LOW, LN2_HIGH, LN2_LOW, logarithmSeries } from './series'
import { deliver, enter, isEmpty, leave, leftST, rightST, roundExtended, underflowInto } from './stack'
import { multiplyWide, shiftRightHigh, upper } from './wide'
import { outOfRange, setFromFraction } from './x87-transcendental'
/** F2XM1: 2^ST(0) - 1. Outside -1 to 1, where the result is undefined, ST(0) stays. */
export function x87_exponential(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  if (leftClass >= QNAN) quietLeft()
  else if (leftClass == INFINITY) {
    if (leftSign) setResult(1, 0, INTEGER_BIT, 0)
    else setInfinity(0)
  } else if (leftClass == ZERO) setZero(leftSign)
  else if (!denormalStopsUnary()) {
    if (leftExponent > 0 || (leftExponent == 0 && leftSignificand != INTEGER_BIT)) outOfRange()
    else if (leftExponent == 0) {
      // Exact, yet the host's processor says inexact, and comes to 1 from below.
      raise(PE)
      if (leftSign) setResult(1, -1, INTEGER_BIT, 0)
      else setResult(0, -1, ~u64(0), ~u64(0))
    } else exponentialFinite()
  }
  roundExtended()
  return deliver(cpu, 0, false)
}

/** exp(a) - 1 = 2 a * series(a) with a = x ln 2. */
function exponentialFinite(): void {
  multiplyFraction(leftSignificand, 0, LN2_HIGH, LN2_LOW)
  const zeros = i32(normalizeFraction())
  const exponent = leftExponent + 1 - zeros
  const argumentHigh = high
  const argumentLow = low
  shiftFraction(min<u32>(u32(-exponent), 128))
  exponentialSeries(leftSign != 0, high, low)
  multiplyFraction(high, low, argumentHigh, argumentLow)
  setFromFraction(leftSign, exponent)
}

// The logarithm under way: (-1)^sign * fraction * 2^(exponent + 1), or exactly an integer.
let logarithmSign: u32 = 0
let logarithmExponent: i32 = 0

/** log2((1 + s) / (1 - s)) for s = high:low * 2^exponent, at most 0.172: 8 s * series(s^2) / (2 ln 2). Leaves the fraction. */
function logarithmOfRatio(exponent: i32): i32 {
  const zeros = i32(normalizeFraction())
  const scale = exponent - zeros
  const ratioHigh = high
  const ratioLow = low
  shiftFraction(min<u32>(u32(-scale), 128))
  multiplyFraction(high, low, high, low)
  logarithmSeries(high, low)
  multiplyFraction(high, low, ratioHigh, ratioLow)
  multiplyFraction(high, low, HALF_LOG2E_HIGH, HALF_LOG2E_LOW)
  return scale + 3 - i32(normalizeFraction())
}

const ROOT_OF_TWO: u64 = 0xb504f333f9de6484

/** log2 of a positive number, its significand of 128 bits; not of 1. Leaves the fraction. */
function logarithm(significand: u64, significandLow: u64, exponent: i32): void {
  const above = significand < ROOT_OF_TWO
  const whole = above ? exponent : exponent + 1
  const sign = u32(!above)
  // m - 1 and m + 1, the latter halved or quartered.
  if (above) setFraction(significand - INTEGER_BIT, significandLow)
  else setFraction(~significand + u64(significandLow == 0), u64(0) - significandLow)
  const exact = (high | low) == 0
  let scale = 0
  if (!exact) {
    const zeros = i32(normalizeFraction())
    shiftFraction(1)
    const base = above ? significand - INTEGER_BIT : significand
    divideFraction(high, low, INTEGER_BIT | (base >> 1), (base << 63) | (significandLow >> 1))
    scale = logarithmOfRatio(-zeros)
  }
  if (whole == 0) {
    logarithmSign = sign
    logarithmExponent = scale - 1
    return
  }
  shiftFraction(u32(16 - scale))
  logarithmSign = u32(whole < 0)
  const integer = u64(whole < 0 ? -whole : whole) << 48
  if (sign == logarithmSign || exact) setFraction(integer + high, low)
  else setFraction(integer - high - u64(low != 0), u64(0) - low)
  logarithmExponent = 15 - i32(normalizeFraction())
}

/** Right operand times the logarithm. */
function multiplyByLogarithm(exact: bool): void {
  const exponent = logarithmExponent + rightExponent
  if (exact) {
    const lower = multiplyWide(high, rightSignificand)
    setFraction(upper, lower)
    const zeros = i32(normalizeFraction())
    setResult(logarithmSign ^ rightSign, exponent + 1 - zeros, high, low)
    // The logarithm of a power of two counts as inexact all the same.
    raise(PE)
  } else {
    multiplyFraction(high, low, rightSignificand, 0)
    setFromFraction(logarithmSign ^ rightSign, exponent + 1)
  }
}

/** FYL2X: ST(1) * log2 ST(0), popping. */
export function x87_logarithm(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) return underflowInto(cpu, 1, true)
  leftST(cpu, 0)
  rightST(cpu, 1)
  const one = leftClass == NORMAL && leftExponent == 0 && leftSignificand == INTEGER_BIT
  if (leftClass >= QNAN || rightClass >= QNAN) propagateLarger()
  else if (leftClass == ZERO) {
    if (rightClass == ZERO) setInvalid()
    else {
      if (rightClass == NORMAL) raise(ZE)
      setInfinity(rightSign ^ 1)
    }
  } else if (leftSign) setInvalid()
  else if (leftClass == INFINITY) {
    if (rightClass == ZERO) setInvalid()
    else if (!denormalStops()) setInfinity(rightSign)
  } else if (rightClass == INFINITY) {
    if (one) setInvalid()
    else if (!denormalStops()) setInfinity(rightSign ^ u32(leftExponent < 0))
  } else if (denormalStops()) return leave(cpu)
  else if (rightClass == ZERO || one) setZero(rightSign ^ u32(leftExponent < 0))
  else {
    logarithm(leftSignificand, 0, leftExponent)
    multiplyByLogarithm(leftSignificand == INTEGER_BIT)
  }
  roundExtended()
  return deliver(cpu, 1, true)
}

/** FYL2XP1: ST(1) * log2(ST(0) + 1), popping; ST(0) up to -1 is out of range. */
export function x87_logarithm_plus_one(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) return underflowInto(cpu, 1, true)
  leftST(cpu, 0)
  rightST(cpu, 1)
  if (leftClass >= QNAN || rightClass >= QNAN) propagateLarger()
  else if (leftSign && leftClass == INFINITY) setInvalid()
  else if (leftClass == INFINITY ? rightClass == ZERO : leftClass == ZERO && rightClass == INFINITY) setInvalid()
  else if (denormalStops()) return leave(cpu)
  else if (leftClass == INFINITY || rightClass == INFINITY) setInfinity(leftSign ^ rightSign)
  else if (leftClass == ZERO || rightClass == ZERO) setZero(leftSign ^ rightSign)
  else if (leftSign && leftExponent >= 0) outOfRange()
  else {
    logarithmPlusOne()
    multiplyByLogarithm(false)
  }
  roundExtended()
  return deliver(cpu, 1, true)
}

/** log2(1 + x) for x > -1: directly from s = x / (2 + x) while |x| is small. */
function logarithmPlusOne(): void {
  if (leftExponent >= -2) {
    // 1 + x has at most 66 bits here for x below 1; above, what falls off the end does not matter.
    const sign = leftSign
    const significand = leftSignificand
    const shift = leftExponent
    if (shift < 0) {
      setFraction(significand, 0)
      shiftFraction(u32(1 - shift))
      // Now x / 4.
      const quarter: u64 = 0x4000000000000000
      if (sign) setFraction(quarter - high - u64(low != 0), u64(0) - low)
      else setFraction(quarter + high, low)
    } else {
      setFraction(significand >> 1, significand << 63)
      const one = shiftRightHigh(INTEGER_BIT, u32(min(shift, 127)) + 1)
      const oneLow = shift < 63 ? 0 : shift < 127 ? u64(1) << (126 - shift) : 0
      const sum = low + oneLow
      setFraction(high + one + u64(sum < low), sum)
    }
    const zeros = i32(normalizeFraction())
    logarithm(high, low, (shift < 0 ? 1 : shift + 1) - zeros)
    return
  }
  const sign = leftSign
  const numerator = leftSignificand
  setFraction(numerator, 0)
  shiftFraction(min<u32>(u32(1 - leftExponent), 128))
  // (2 + x) / 4, about a half.
  if (sign) setFraction(INTEGER_BIT - high - u64(low != 0), u64(0) - low)
  else setFraction(INTEGER_BIT + high, low)
  const zeros = i32(normalizeFraction())
  divideFraction(numerator >> 1, numerator << 63, high, low)
  // x = numerator * 2^(exponent - 63), 2 + x = denominator * 2^(2 - zeros), the numerator halved.
  logarithmSign = sign
  logarithmExponent = logarithmOfRatio(leftExponent + zeros) - 1
}
