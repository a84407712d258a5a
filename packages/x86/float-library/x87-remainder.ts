/** FSCALE, FXTRACT, FPREM, FPREM1: exponents and remainders; whole instructions. They return 1 when an exception is pending. */
import { denormalStops, denormalStopsUnary, propagateLarger, quietLeft } from './arithmetic'
import { EXTENDED_MAXIMUM, EXTENDED_MINIMUM, leftInteger } from './format'
import {
  copyLeftToResult,
  INFINITY,
  leftClass,
  leftExponent,
  leftSign,
  leftSignificand,
  NORMAL,
  PE,
  QNAN,
  raise,
  resultClass,
  resultExponent,
  resultSign,
  rightClass,
  rightExponent,
  rightSign,
  rightSignificand,
  setInfinity,
  setInvalid,
  setResult,
  setRoundedUp,
  setZero,
  stopped,
  ZE,
  ZERO,
} from './number'
import {
  C0,
  C1,
  C2,
  C3,
  deliver,
  enter,
  isEmpty,
  leave,
  leaveWith,
  leftST,
  rightST,
  rotate,
  roundExtended,
  stackOverflows,
  stackUnderflow,
  underflowInto,
  writeIndefinite,
  writeResult,
  writeST,
} from './stack'
import { divideWide, remainder } from './wide'
/** FSCALE: ST(0) * 2^trunc(ST(1)). */
export function x87_scale(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  rightST(cpu, 1)
  if (leftClass >= QNAN || rightClass >= QNAN) propagateLarger()
  else if (rightClass == INFINITY) {
    if (leftClass == (rightSign ? INFINITY : ZERO)) setInvalid()
    else if (denormalStops()) return leave(cpu)
    else if (rightSign) setZero(leftSign)
    else setInfinity(leftSign)
  } else if (denormalStops()) return leave(cpu)
  else if (leftClass != NORMAL) copyLeftToResult()
  else setResult(leftSign, leftExponent + scaleBy(), leftSignificand, 0)
  roundExtended()
  if (resultClass == NORMAL && !stopped()) boundScaled()
  return deliver(cpu, 0, false)
}

/** Scaled so far that an unmasked overflow's or underflow's adjusted exponent does not fit either: infinity or zero. */
function boundScaled(): void {
  if (resultExponent > EXTENDED_MAXIMUM) {
    raise(PE)
    setRoundedUp(true)
    setInfinity(resultSign)
  } else if (resultExponent < EXTENDED_MINIMUM) {
    raise(PE)
    setRoundedUp(false)
    setZero(resultSign)
  }
}

/** The right operand truncated, within what can matter: the smallest number scaled beyond the largest. */
function scaleBy(): i32 {
  if (rightClass == ZERO || rightExponent < 0) return 0
  const magnitude = rightExponent > 16 ? 0x20000 : i32(rightSignificand >> (63 - rightExponent))
  return rightSign ? -magnitude : magnitude
}

/** FXTRACT: the exponent replaces ST(0), the significand is pushed. */
export function x87_extract(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) {
    if (stackUnderflow()) {
      writeIndefinite(cpu, 0)
      rotate(cpu, -1)
      writeIndefinite(cpu, 0)
    }
    return leave(cpu)
  }
  if (stackOverflows(cpu)) {
    if (!stopped()) writeIndefinite(cpu, 1)
    return leave(cpu)
  }
  leftST(cpu, 0)
  const sign = leftSign
  const significand = leftSignificand
  let signExponent: u32 = (sign << 15) | 0x3fff
  if (leftClass >= QNAN) {
    quietLeft()
    if (stopped()) return leave(cpu)
    writeResult(cpu, 0)
    rotate(cpu, -1)
    writeResult(cpu, 0)
    return leave(cpu)
  }
  if (leftClass == ZERO) raise(ZE)
  else if (denormalStopsUnary()) return leave(cpu)
  if (stopped()) return leave(cpu)
  if (leftClass == NORMAL) {
    leftInteger(leftExponent)
    copyLeftToResult()
  } else {
    signExponent = (sign << 15) | (leftClass == ZERO ? 0 : 0x7fff)
    setInfinity(u32(leftClass == ZERO))
  }
  writeResult(cpu, 0)
  rotate(cpu, -1)
  writeST(cpu, 0, signExponent, significand)
  return leave(cpu)
}

/** The quotient's low bits of the remainder in progress. */
let quotient: u64 = 0

/** left - right * quotient for a quotient truncated (FPREM) or rounded to even (FPREM1), exponents `distance` < 64 apart. */
function remainderFinite(distance: i32, nearest: bool): void {
  const divisor = rightSignificand
  let sign = leftSign
  let exponent = rightExponent
  let rest: u64
  quotient = 0
  if (distance < 0) {
    if (!nearest || distance < -1 || leftSignificand <= divisor) {
      copyLeftToResult()
      return
    }
    // Above half the divisor: one divisor too much, counted in halves.
    rest = divisor - (leftSignificand - divisor)
    sign ^= 1
    exponent--
    quotient = 1
  } else {
    quotient = divideWide(distance ? leftSignificand >> (64 - distance) : 0, leftSignificand << distance, divisor)
    rest = remainder
    const over = divisor - rest
    if (nearest && (rest > over || (rest == over && (quotient & 1) != 0))) {
      rest = over
      sign ^= 1
      quotient++
    }
  }
  if (rest == 0) setZero(leftSign)
  else setResult(sign, exponent - i32(clz(rest)), rest << clz(rest), 0)
}

/** FPREM (truncating) and FPREM1 (IEEE 754). C2 says the reduction is not complete, C0, C3 and C1 are the quotient's low bits. */
export function x87_remainder(cpu: u32, nearest: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) {
    underflowInto(cpu, 0, false)
    return leaveWith(cpu, C2, 0)
  }
  leftST(cpu, 0)
  rightST(cpu, 1)
  let codes: i32 = 0
  let which: i32 = C2
  if (leftClass >= QNAN || rightClass >= QNAN) propagateLarger()
  else if (leftClass == INFINITY || rightClass == ZERO) setInvalid()
  else if (denormalStops()) return leaveWith(cpu, C2, 0)
  else if (leftClass == ZERO || rightClass == INFINITY) {
    which = C0 | C2 | C3
    copyLeftToResult()
  } else {
    const distance = leftExponent - rightExponent
    which = C0 | C2 | C3
    if (distance < 64) {
      remainderFinite(distance, nearest)
      codes = (quotient & 1 ? C1 : 0) | (quotient & 2 ? C3 : 0) | (quotient & 4 ? C0 : 0)
    } else {
      // The manual leaves the step between 32 and 63 to the implementation; AMD's gives 32 + distance mod 32.
      const step = 32 + (distance & 31)
      const exponent = rightExponent + distance - step
      divideWide(leftSignificand >> (64 - step), leftSignificand << step, rightSignificand)
      if (remainder == 0) setZero(leftSign)
      else setResult(leftSign, exponent - i32(clz(remainder)), remainder << clz(remainder), 0)
      codes = C2
    }
  }
  if (stopped()) return leaveWith(cpu, C2, 0)
  roundExtended()
  writeResult(cpu, 0)
  setRoundedUp(false)
  return leaveWith(cpu, which, codes)
}
