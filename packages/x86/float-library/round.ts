/** Rounding to a format's precision and range, with overflow and underflow, and rounding to an integer. */
import {
  DOWN,
  flushToZero,
  IE,
  INTEGER_BIT,
  leftClass,
  leftExponent,
  leftSign,
  leftSignificand,
  masks,
  NEAREST,
  NORMAL,
  OE,
  PE,
  raise,
  resultExponent,
  resultRest,
  resultSign,
  resultSignificand,
  rounding,
  setInfinity,
  setResult,
  setRoundedUp,
  setZero,
  TRUNCATE,
  UE,
  UP,
  wrap,
  ZERO,
} from './number'
import { shiftRightHigh, shiftRightJam } from './wide'

/** `tail` holds the bits below the last one kept, the first of them in bit 63, the last one sticky. */
function roundsUp(tail: u64, odd: bool, sign: u32): bool {
  if (rounding == NEAREST) return tail > INTEGER_BIT || (tail == INTEGER_BIT && odd)
  if (rounding == TRUNCATE || tail == 0) return false
  return rounding == (sign ? DOWN : UP)
}

function tailOf(significand: u64, rest: u64, precision: u32): u64 {
  return precision == 64 ? rest : (significand << precision) | u64(rest != 0)
}

/** Rounds the result to `precision` bits with no bound on its exponent; whether it was inexact. */
function roundSignificand(precision: u32): bool {
  const tail = tailOf(resultSignificand, resultRest, precision)
  const unit: u64 = u64(1) << (64 - precision)
  let significand = resultSignificand & ~(unit - 1)
  const up = roundsUp(tail, (significand & unit) != 0, resultSign)
  let exponent = resultExponent
  if (up) {
    significand += unit
    if (significand < unit) {
      significand = INTEGER_BIT
      exponent++
    }
    setRoundedUp(true)
  }
  setResult(resultSign, exponent, significand, 0)
  if (tail != 0) raise(PE)
  return tail != 0
}

function overflow(maximum: i32, precision: u32): void {
  raise(OE)
  if (!(masks & OE)) {
    setResult(resultSign, resultExponent - wrap, resultSignificand, 0)
    return
  }
  raise(PE)
  const away = rounding == NEAREST || rounding == (resultSign ? DOWN : UP)
  setRoundedUp(away)
  if (away) setInfinity(resultSign)
  else setResult(resultSign, maximum, ~((u64(1) << (64 - precision)) - 1), 0)
}

/** The result is below 2^minimum before rounding. */
function underflow(precision: u32, minimum: i32): void {
  const tail = tailOf(resultSignificand, resultRest, precision)
  const unit: u64 = u64(1) << (64 - precision)
  // Tininess is found after rounding with an unbounded exponent. (SDM Vol. 1, "Numeric Underflow Exception")
  const becomesNormal =
    resultExponent == minimum - 1 && (resultSignificand | (unit - 1)) == ~u64(0) && roundsUp(tail, true, resultSign)
  if (becomesNormal) {
    roundSignificand(precision)
    return
  }
  if (!(masks & UE)) {
    raise(UE)
    roundSignificand(precision)
    setResult(resultSign, resultExponent + wrap, resultSignificand, 0)
    return
  }
  if (flushToZero) {
    raise(UE | PE)
    setZero(resultSign)
    return
  }
  const shift = u32(minimum - resultExponent)
  setResult(
    resultSign,
    minimum,
    shiftRightHigh(resultSignificand, shift),
    shiftRightJam(resultSignificand, resultRest, shift),
  )
  if (roundSignificand(precision)) raise(UE)
  if (resultSignificand == 0) setZero(resultSign)
}

/** Rounds a result of class NORMAL; others stand as they are. */
export function roundResult(precision: u32, minimum: i32, maximum: i32): void {
  if (resultExponent < minimum) {
    underflow(precision, minimum)
    return
  }
  roundSignificand(precision)
  if (resultExponent > maximum) overflow(maximum, precision)
}

/** Rounds the left operand (finite) to an integer: the result, of any size. Whether it was inexact is returned. */
export function roundToIntegral(mode: i32): bool {
  if (leftClass == ZERO) {
    setZero(leftSign)
    return false
  }
  if (leftExponent >= 63) {
    setResult(leftSign, leftExponent, leftSignificand, 0)
    return false
  }
  const magnitude = integerMagnitude(mode)
  const inexact = integerTail != 0
  if (magnitude == 0) setZero(leftSign)
  else {
    const shift = clz(magnitude)
    setResult(leftSign, 63 - i32(shift), magnitude << shift, 0)
  }
  return inexact
}

let integerTail: u64 = 0

/** The left operand's magnitude, below 2^64, rounded to an integer. It does not overflow for operands below 2^63. */
function integerMagnitude(mode: i32): u64 {
  const shift = u32(63 - leftExponent)
  const magnitude = shiftRightHigh(leftSignificand, shift)
  integerTail = shiftRightJam(leftSignificand, 0, shift)
  const tail = integerTail
  let up = false
  if (mode == NEAREST) up = tail > INTEGER_BIT || (tail == INTEGER_BIT && (magnitude & 1) != 0)
  else if (mode != TRUNCATE && tail != 0) up = mode == (leftSign ? DOWN : UP)
  setRoundedUp(up)
  return magnitude + u64(up)
}

/** The left operand as a signed integer of `bits` bits: what does not fit is invalid and gives the integer indefinite. */
export function toInteger(bits: u32, mode: i32): i64 {
  const indefinite: i64 = i64.MIN_VALUE >> (64 - bits)
  if (leftClass == ZERO) return 0
  if (leftClass != NORMAL || leftExponent >= i32(bits)) {
    raise(IE)
    return indefinite
  }
  const magnitude = integerMagnitude(mode)
  const limit = (u64(1) << (bits - 1)) - u64(leftSign == 0)
  if (magnitude > limit) {
    setRoundedUp(false)
    raise(IE)
    return indefinite
  }
  if (integerTail != 0) raise(PE)
  return leftSign ? -i64(magnitude) : i64(magnitude)
}
