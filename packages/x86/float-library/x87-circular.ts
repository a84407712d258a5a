/** FSIN, FCOS, FSINCOS, FPTAN: whole instructions. */
import { denormalStopsUnary, quietLeft } from './arithmetic'
import {
  complementFraction,
  divideFraction,
  high,
  low,
  multiplyFraction,
  normalizeFraction,
  setFraction,
  shiftFraction,
} from './fraction'
import {
  INFINITY,
  INTEGER_BIT,
  leftClass,
  leftExponent,
  leftSign,
  leftSignificand,
  NORMAL,
  QNAN,
  roundedUp,
  setInvalid,
  setResult,
  setRoundedUp,
  setZero,
  stopped,
  ZERO,
} from './number'
import { cosineSeries, sineSeries } from './series'
import {
  C2,
  deliver,
  enter,
  isEmpty,
  leaveWith,
  leftST,
  rotate,
  roundExtended,
  stackOverflows,
  stackUnderflow,
  underflowInto,
  writeIndefinite,
  writeResult,
  writeST,
} from './stack'
import { setFromFraction } from './x87-transcendental'
// Angles. pi to 66 bits is ANGLE_HIGH:ANGLE_LOW / 2^64, pi / 2 the same / 2^65.
const ANGLE_HIGH: u64 = 3
const ANGLE_LOW: u64 = 0x243f6a8885a308d3

let quadrant: u32 = 0
// The reduced angle: sign, and a number as usual with a significand of 128 bits.
let angleSign: u32 = 0
let angleExponent: i32 = 0
let angleHigh: u64 = 0
let angleLow: u64 = 0
// Its sine and cosine: fractions; the sine is of the angle scaled as its significand is.
let squareHigh: u64 = 0
let squareLow: u64 = 0

/** Reduces the left operand, below 2^63, to at most pi / 4 either way. */
function reduceAngle(): void {
  quadrant = 0
  angleSign = leftSign
  if (leftExponent < -2) {
    angleExponent = leftExponent
    angleHigh = leftSignificand
    angleLow = 0
    return
  }
  // Units of 2^-65: an integer less than pi / 2 is shifted left, a bit at a time, and reduced.
  let restHigh: u64 = 0
  let restLow = leftSignificand
  for (let count = leftExponent + 2; count > 0; count--) {
    restHigh = (restHigh << 1) | (restLow >> 63)
    restLow <<= 1
    quadrant <<= 1
    if (restHigh > ANGLE_HIGH || (restHigh == ANGLE_HIGH && restLow >= ANGLE_LOW)) {
      restHigh = restHigh - ANGLE_HIGH - u64(restLow < ANGLE_LOW)
      restLow -= ANGLE_LOW
      quadrant++
    }
  }
  const overHigh = ANGLE_HIGH - restHigh - u64(ANGLE_LOW < restLow)
  const overLow = ANGLE_LOW - restLow
  if (restHigh > overHigh || (restHigh == overHigh && restLow > overLow)) {
    restHigh = overHigh
    restLow = overLow
    angleSign ^= 1
    quadrant++
  }
  if (leftSign) quadrant = 0 - quadrant
  setFraction(restHigh, restLow)
  angleExponent = 62 - i32(normalizeFraction())
  angleHigh = high
  angleLow = low
}

function squareAngle(): void {
  setFraction(angleHigh, angleLow)
  shiftFraction(min<u32>(u32(-1 - angleExponent), 128))
  multiplyFraction(high, low, high, low)
  squareHigh = high
  squareLow = low
}

/** The sine of the reduced angle's magnitude: a fraction times 2^(angleExponent + 1). */
function sineOfAngle(): void {
  sineSeries(squareHigh, squareLow)
  multiplyFraction(high, low, squareHigh, squareLow)
  complementFraction()
  multiplyFraction(high, low, angleHigh, angleLow)
}

/** The cosine of the reduced angle: a fraction. */
function cosineOfAngle(): void {
  cosineSeries(squareHigh, squareLow)
  multiplyFraction(high, low, squareHigh, squareLow)
  complementFraction()
}

/** The sine (`shift` 0) or cosine (1) of the angle that was reduced: the result. */
function circular(shift: u32): void {
  const turn = quadrant + shift
  if (turn & 1) {
    cosineOfAngle()
    setFromFraction((turn >> 1) & 1, -1)
  } else {
    sineOfAngle()
    setFromFraction(angleSign ^ ((turn >> 1) & 1), angleExponent)
  }
}

/** Whether the operand is too large an angle: C2 is set and nothing else happens. */
function tooLarge(): bool {
  return leftClass == NORMAL && leftExponent >= 63
}

function sineOrCosine(cpu: u32, shift: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) {
    underflowInto(cpu, 0, false)
    return leaveWith(cpu, C2, 0)
  }
  leftST(cpu, 0)
  if (tooLarge()) return leaveWith(cpu, C2, C2)
  if (leftClass >= QNAN) quietLeft()
  else if (leftClass == INFINITY) setInvalid()
  else if (leftClass == ZERO) {
    if (shift) setResult(0, 0, INTEGER_BIT, 0)
    else setZero(leftSign)
  } else if (!denormalStopsUnary()) {
    reduceAngle()
    squareAngle()
    circular(shift)
  }
  roundExtended()
  deliver(cpu, 0, false)
  return leaveWith(cpu, C2, 0)
}

export function x87_sine(cpu: u32): i32 {
  return sineOrCosine(cpu, 0)
}

export function x87_cosine(cpu: u32): i32 {
  return sineOrCosine(cpu, 1)
}

/** Both operands' places for an instruction that replaces ST(0) and pushes; whether it is over. */
function pushingFault(cpu: u32): bool {
  if (isEmpty(cpu, 0)) {
    if (stackUnderflow()) {
      writeIndefinite(cpu, 0)
      rotate(cpu, -1)
      writeIndefinite(cpu, 0)
    }
    return true
  }
  if (stackOverflows(cpu)) {
    if (!stopped()) writeIndefinite(cpu, 1)
    return true
  }
  return false
}

/** Replaces ST(0) by the result and pushes it, too. */
function deliverTwice(cpu: u32): i32 {
  if (!stopped()) {
    writeResult(cpu, 0)
    rotate(cpu, -1)
    writeResult(cpu, 0)
  }
  return leaveWith(cpu, C2, 0)
}

/** FSINCOS: the sine replaces ST(0), the cosine is pushed. */
export function x87_sine_cosine(cpu: u32): i32 {
  enter(cpu)
  if (pushingFault(cpu)) return leaveWith(cpu, C2, 0)
  leftST(cpu, 0)
  if (tooLarge()) return leaveWith(cpu, C2, C2)
  if (leftClass >= NAN_OR_INFINITY) {
    if (leftClass == INFINITY) setInvalid()
    else quietLeft()
    return deliverTwice(cpu)
  }
  if (leftClass == ZERO) {
    rotate(cpu, -1)
    writeST(cpu, 0, ONE_SIGN_EXPONENT, INTEGER_BIT)
    return leaveWith(cpu, C2, 0)
  }
  if (denormalStopsUnary()) return leaveWith(cpu, C2, 0)
  reduceAngle()
  squareAngle()
  circular(0)
  roundExtended()
  writeResult(cpu, 0)
  const up = roundedUp
  circular(1)
  roundExtended()
  setRoundedUp(up)
  rotate(cpu, -1)
  writeResult(cpu, 0)
  return leaveWith(cpu, C2, 0)
}

/** Classes from here on are infinity and the NaNs. */
const NAN_OR_INFINITY: i32 = 2
const ONE_SIGN_EXPONENT: u32 = 0x3fff

/** FPTAN: the tangent replaces ST(0), 1 is pushed. */
export function x87_tangent(cpu: u32): i32 {
  enter(cpu)
  if (pushingFault(cpu)) return leaveWith(cpu, C2, 0)
  leftST(cpu, 0)
  if (tooLarge()) return leaveWith(cpu, C2, C2)
  if (leftClass >= NAN_OR_INFINITY) {
    if (leftClass == INFINITY) setInvalid()
    else quietLeft()
    return deliverTwice(cpu)
  }
  if (leftClass != ZERO) {
    if (denormalStopsUnary()) return leaveWith(cpu, C2, 0)
    tangentFinite()
    roundExtended()
    writeResult(cpu, 0)
  }
  rotate(cpu, -1)
  writeST(cpu, 0, ONE_SIGN_EXPONENT, INTEGER_BIT)
  return leaveWith(cpu, C2, 0)
}

function tangentFinite(): void {
  if (leftExponent < -70) {
    // A trifle above the angle.
    setResult(leftSign, leftExponent, leftSignificand, 1)
    return
  }
  reduceAngle()
  squareAngle()
  cosineOfAngle()
  const cosineHigh = high
  const cosineLow = low
  sineOfAngle()
  // The sine as a fraction below a half, with its exponent: the cosine is 0.7 or more.
  const zeros = i32(normalizeFraction())
  const exponent = angleExponent + 1 - zeros
  if (quadrant & 1) {
    // -1 / tan: the cosine's half over the sine.
    const sineHigh = high
    const sineLow = low
    setFraction(cosineHigh, cosineLow)
    shiftFraction(1)
    divideFraction(high, low, sineHigh, sineLow)
    setFromFraction(angleSign ^ 1, -exponent)
  } else {
    shiftFraction(1)
    divideFraction(high, low, cosineHigh, cosineLow)
    setFromFraction(angleSign, exponent)
  }
}
