/**
 * FSIN, FCOS, FSINCOS, FPTAN, FPATAN, F2XM1, FYL2X, FYL2XP1, whole instructions. Computed to about 110 bits and then rounded, so that
 * results are the correctly rounded ones, save that the angle is reduced by pi to 66 bits as the processor's is. Silicon is good to
 * a unit in the last place only, and differs between vendors there. They return 1 when an exception is pending.
 */
import { denormalStops, denormalStopsUnary, propagateLarger, quietLeft } from './arithmetic'
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
  copyLeftToResult,
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
  roundedUp,
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
  arcTangentOfEighths,
  arcTangentSeries,
  cosineSeries,
  exponentialSeries,
  HALF_LOG2E_HIGH,
  HALF_LOG2E_LOW,
  LN2_HIGH,
  LN2_LOW,
  logarithmSeries,
  QUARTER_PI_HIGH,
  QUARTER_PI_LOW,
  sineSeries,
} from './series'
import {
  C2,
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
import { multiplyWide, shiftRightHigh, upper } from './wide'
/** Rounds the fraction as a number's significand: the result. It is never exact. */
function setFromFraction(sign: u32, exponent: i32): void {
  const zeros = i32(normalizeFraction())
  setResult(sign, exponent - zeros, high, low | 1)
}

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

/** What the host's processor answers where the manual leaves the result undefined: ST(0), said to be inexact. */
function outOfRange(): void {
  raise(PE)
  copyLeftToResult()
}

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

/** log2 of a positive significand / 2^63 * 2^exponent that is not 1. Leaves the fraction. */
function logarithm(significand: u64, exponent: i32): void {
  // Nearest power of two; what is over is m, with (m - 1) / (m + 1) = numerator / denominator.
  const above = significand < ROOT_OF_TWO
  const whole = above ? exponent : exponent + 1
  const numerator = above ? significand - INTEGER_BIT : u64(0) - significand
  const sign = u32(!above)
  if (numerator == 0) {
    logarithmSign = u32(whole < 0)
    setFraction(u64(whole < 0 ? -whole : whole) << 48, 0)
    logarithmExponent = 15 - i32(normalizeFraction())
    return
  }
  const zeros = u32(clz(numerator))
  divideFraction(
    (numerator << zeros) >> 1,
    (numerator << zeros) << 63,
    INTEGER_BIT | ((above ? significand - INTEGER_BIT : significand) >> 1),
    significand << 63,
  )
  const scale = logarithmOfRatio(-i32(zeros))
  if (whole == 0) {
    logarithmSign = sign
    logarithmExponent = scale - 1
    return
  }
  // 16 bits of integer, 112 of fraction.
  shiftFraction(u32(16 - scale))
  logarithmSign = u32(whole < 0)
  const integer = u64(whole < 0 ? -whole : whole) << 48
  if (sign == logarithmSign) setFraction(integer + high, low)
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
    logarithm(leftSignificand, leftExponent)
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
    logarithmWide(high, low, (shift < 0 ? 1 : shift + 1) - zeros)
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

/** log2 of a number whose significand has 128 bits. */
function logarithmWide(significand: u64, significandLow: u64, exponent: i32): void {
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

/** FPATAN: the angle of the point (ST(0), ST(1)), popping. */
export function x87_arc_tangent(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0) || isEmpty(cpu, 1)) return underflowInto(cpu, 1, true)
  leftST(cpu, 1)
  rightST(cpu, 0)
  if (leftClass >= QNAN || rightClass >= QNAN) propagateLarger()
  else if (!denormalStops()) {
    if (leftClass == ZERO || (rightClass == INFINITY && leftClass == NORMAL)) {
      if (rightSign) setAngle(4)
      else setZero(leftSign)
    } else if (leftClass == INFINITY && rightClass == INFINITY) setAngle(rightSign ? 3 : 1)
    else if (leftClass == INFINITY || rightClass == ZERO) setAngle(2)
    else arcTangentFinite()
  }
  roundExtended()
  return deliver(cpu, 1, true)
}

/** `quarters` * pi / 4 with the left operand's sign. */
function setAngle(quarters: u32): void {
  setFraction(QUARTER_PI_HIGH, QUARTER_PI_LOW)
  if (quarters == 3) {
    // 3/4 of pi, in units of 4.
    multiplyFraction(high, low, 0xc000000000000000, 0)
    setFromFraction(leftSign, 1)
  } else setFromFraction(leftSign, quarters == 1 ? -1 : quarters == 2 ? 0 : 1)
}

/** arctan of the quotient of magnitudes that is at most 1, then turned into its octant. */
function arcTangentFinite(): void {
  const steep = leftExponent > rightExponent || (leftExponent == rightExponent && leftSignificand > rightSignificand)
  const numerator = steep ? rightSignificand : leftSignificand
  const denominator = steep ? leftSignificand : rightSignificand
  const distance = steep ? leftExponent - rightExponent : rightExponent - leftExponent
  const eighths = distance > 5 ? 0 : nearestEighth(numerator, denominator, distance)
  let exponent: i32
  let below: bool = false
  let exact: bool = false
  if (eighths == 0) {
    divideFraction(numerator >> 1, numerator << 63, denominator, 0)
    exponent = 1 - distance
  } else {
    // (8 n - k d) / (8 d + k n), where k/8 is next to n/d: at most 1/16.
    const scaledHigh = distance ? denominator >> (64 - distance) : 0
    const scaledLow = denominator << distance
    const k = u64(eighths)
    const multipleLow = multiplyWide(scaledLow, k)
    const multipleHigh = upper + scaledHigh * k
    const eightHigh = numerator >> 61
    const eightLow = numerator << 3
    let overHigh = eightHigh - multipleHigh - u64(eightLow < multipleLow)
    let overLow = eightLow - multipleLow
    if (i64(overHigh) < 0) {
      below = true
      overHigh = ~overHigh + u64(overLow == 0)
      overLow = u64(0) - overLow
    }
    exact = (overHigh | overLow) == 0
    if (exact) exponent = 0
    else {
      const sumLow = multiplyWide(numerator, k)
      const sumHigh = upper + ((scaledHigh << 3) | (scaledLow >> 61))
      const total = sumLow + (scaledLow << 3)
      setFraction(sumHigh + u64(total < sumLow), total)
      const zeros = i32(normalizeFraction())
      const divisorHigh = high
      const divisorLow = low
      setFraction(overHigh, overLow)
      exponent = zeros - i32(normalizeFraction()) + 1
      shiftFraction(1)
      divideFraction(high, low, divisorHigh, divisorLow)
    }
  }
  if (!exact) exponent = arcTangentOfFraction(exponent)
  const plain = !steep && !rightSign
  if (plain && eighths == 0) {
    setResult(leftSign, exponent - 1, high, low | 1)
    return
  }
  // From here on in units of 4, fixed point.
  if (exact) setFraction(0, 0)
  else shiftFraction(u32(min(2 - exponent, 128)))
  if (eighths) {
    const smallHigh = high
    const smallLow = low
    arcTangentOfEighths(eighths)
    if (below) subtractFraction(smallHigh, smallLow)
    else addFraction(smallHigh, smallLow)
  }
  if (!plain) {
    const angleHigh = high
    const angleLow = low
    setFraction(QUARTER_PI_HIGH, QUARTER_PI_LOW)
    if (steep) shiftFraction(1)
    if (steep && rightSign) addFraction(angleHigh, angleLow)
    else if ((angleHigh | angleLow) == 0) subtractFraction(0, 1)
    else subtractFraction(angleHigh, angleLow)
  }
  setFromFraction(leftSign, 1)
}

function addFraction(addHigh: u64, addLow: u64): void {
  const sum = low + addLow
  setFraction(high + addHigh + u64(sum < addLow), sum)
}

function subtractFraction(subtractHigh: u64, subtractLow: u64): void {
  setFraction(high - subtractHigh - u64(low < subtractLow), low - subtractLow)
}

/** k with k/8 nearest to the quotient; being off by a little does no harm. */
function nearestEighth(numerator: u64, denominator: u64, distance: i32): i32 {
  const quotient = f64(numerator) / f64(u64(1) << distance) / f64(denominator)
  return i32(quotient * 8.0 + 0.5)
}

/** arctan of the fraction times 2^exponent: leaves a normalized fraction, returns its exponent. */
function arcTangentOfFraction(exponent: i32): i32 {
  const scale = exponent - i32(normalizeFraction())
  const argumentHigh = high
  const argumentLow = low
  shiftFraction(u32(min(-scale, 128)))
  multiplyFraction(high, low, high, low)
  const argumentSquareHigh = high
  const argumentSquareLow = low
  arcTangentSeries(high, low)
  multiplyFraction(high, low, argumentSquareHigh, argumentSquareLow)
  complementFraction()
  multiplyFraction(high, low, argumentHigh, argumentLow)
  return scale - i32(normalizeFraction())
}
