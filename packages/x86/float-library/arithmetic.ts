/** The operations on numbers taken apart: left op right to an unrounded result. Knows no format. */
import {
  DE,
  DOWN,
  IE,
  INFINITY,
  INTEGER_BIT,
  leftClass,
  leftDenormal,
  leftExponent,
  leftSign,
  leftSignificand,
  NORMAL,
  QNAN,
  QUIET_BIT,
  raise,
  rightClass,
  rightDenormal,
  rightExponent,
  rightSign,
  rightSignificand,
  rounding,
  setInfinity,
  setInvalid,
  setNaN,
  setResult,
  setZero,
  SNAN,
  stopped,
  UNSUPPORTED,
  ZE,
  ZERO,
} from './number'
import { divideWide, multiplyWide, remainder, shiftRightHigh, shiftRightJam, upper } from './wide'

export const ADD: i32 = 0
export const MULTIPLY: i32 = 1
export const SUBTRACT: i32 = 4
export const SUBTRACT_REVERSED: i32 = 5
export const DIVIDE: i32 = 6
export const DIVIDE_REVERSED: i32 = 7

/** SSE: the first operand if it is a NaN, else the second. (SDM Vol. 1, "Rules for Handling NaNs") */
export function propagateFirst(): void {
  if (leftClass == SNAN || rightClass == SNAN) raise(IE)
  if (leftClass >= QNAN) setNaN(leftSign, leftSignificand)
  else setNaN(rightSign, rightSignificand)
}

/** x87: a quiet NaN before a signalling one, then the larger significand, then the positive sign. */
export function propagateLarger(): void {
  if (leftClass == UNSUPPORTED || rightClass == UNSUPPORTED) {
    setInvalid()
    return
  }
  if (leftClass == SNAN || rightClass == SNAN) raise(IE)
  let left: bool
  if (leftClass < QNAN) left = false
  else if (rightClass < QNAN) left = true
  else if (leftClass != rightClass) left = leftClass == QNAN
  else if (leftSignificand != rightSignificand) left = leftSignificand > rightSignificand
  else left = leftSign == 0
  if (left) setNaN(leftSign, leftSignificand)
  else setNaN(rightSign, rightSignificand)
}

/** Raises the denormal-operand exception if there is cause; whether it stops the operation. */
export function denormalStops(): bool {
  if (leftDenormal || rightDenormal) {
    raise(DE)
    return stopped()
  }
  return false
}

/** The same for operations of one operand, the left one. */
export function denormalStopsUnary(): bool {
  if (leftDenormal) {
    raise(DE)
    return stopped()
  }
  return false
}

/** The sum of two non-zero finite numbers, the right one's sign given. */
export function addFinite(sign: u32): void {
  const distance = leftExponent - rightExponent
  let exponent = leftExponent
  let largeSign = leftSign
  let large = leftSignificand
  let small = rightSignificand
  let shift = u32(distance)
  const same = leftSign == sign
  if (distance < 0 || (distance == 0 && small > large)) {
    large = rightSignificand
    small = leftSignificand
    exponent = rightExponent
    largeSign = sign
    shift = u32(-distance)
  }
  const high = shiftRightHigh(small, shift)
  const low = shiftRightJam(small, 0, shift)
  if (same) {
    const sum = large + high
    if (sum >= large) setResult(largeSign, exponent, sum, low)
    else setResult(largeSign, exponent + 1, (sum >> 1) | INTEGER_BIT, (sum << 63) | (low >> 1) | (low & 1))
    return
  }
  const difference = large - high - u64(low != 0)
  const rest = u64(0) - low
  if (i64(difference) < 0) setResult(largeSign, exponent, difference, rest)
  else if (difference != 0) {
    const zeros = clz(difference)
    setResult(largeSign, exponent - i32(zeros), (difference << zeros) | (rest >> (64 - zeros)), rest << zeros)
  } else if (rest != 0) setResult(largeSign, exponent - 64 - i32(clz(rest)), rest << clz(rest), 0)
  else setZero(u32(rounding == DOWN))
}

/** The product of two non-zero finite numbers. */
export function multiplyFinite(): void {
  const sign = leftSign ^ rightSign
  const exponent = leftExponent + rightExponent
  const low = multiplyWide(leftSignificand, rightSignificand)
  const high = upper
  if (i64(high) < 0) setResult(sign, exponent + 1, high, low)
  else setResult(sign, exponent, (high << 1) | (low >> 63), low << 1)
}

/** The quotient of two non-zero finite numbers. */
export function divideFinite(): void {
  const sign = leftSign ^ rightSign
  const exponent = leftExponent - rightExponent
  const divisor = rightSignificand
  const small = leftSignificand < divisor
  const quotient = small
    ? divideWide(leftSignificand, 0, divisor)
    : divideWide(leftSignificand >> 1, leftSignificand << 63, divisor)
  // One more bit and a sticky one are all that rounding can tell apart.
  const over = divisor - remainder
  const rest: u64 =
    remainder == 0
      ? 0
      : remainder > over
        ? 0xc000000000000000
        : remainder == over
          ? 0x8000000000000000
          : 0x4000000000000000
  setResult(sign, small ? exponent - 1 : exponent, quotient, rest)
}

function addition(sign: u32): void {
  if (leftClass == NORMAL && rightClass == NORMAL) {
    if (!denormalStops()) addFinite(sign)
  } else if (leftClass == INFINITY) {
    if (rightClass == INFINITY && leftSign != sign) setInvalid()
    else if (!denormalStops()) setInfinity(leftSign)
  } else if (denormalStops()) return
  else if (rightClass == INFINITY) setInfinity(sign)
  else if (leftClass == NORMAL) setResult(leftSign, leftExponent, leftSignificand, 0)
  else if (rightClass == NORMAL) setResult(sign, rightExponent, rightSignificand, 0)
  else setZero(leftSign == sign ? sign : u32(rounding == DOWN))
}

function multiplication(): void {
  const sign = leftSign ^ rightSign
  if (leftClass == NORMAL && rightClass == NORMAL) {
    if (!denormalStops()) multiplyFinite()
  } else if (leftClass == INFINITY ? rightClass == ZERO : rightClass == INFINITY && leftClass == ZERO) setInvalid()
  else if (denormalStops()) return
  else if (leftClass == INFINITY || rightClass == INFINITY) setInfinity(sign)
  else setZero(sign)
}

function division(): void {
  const sign = leftSign ^ rightSign
  if (leftClass == NORMAL && rightClass == NORMAL) {
    if (!denormalStops()) divideFinite()
  } else if (leftClass == rightClass) setInvalid()
  else if (rightClass == ZERO && leftClass == NORMAL) {
    raise(ZE)
    setInfinity(sign)
  } else if (denormalStops()) return
  else if (leftClass == INFINITY) setInfinity(sign)
  else if (rightClass == ZERO) setInfinity(sign)
  else setZero(sign)
}

/** left op right where neither is a NaN or unsupported. `stopped()` tells whether there is a result. */
export function operate(operation: i32): void {
  if (operation == ADD) addition(rightSign)
  else if (operation == MULTIPLY) multiplication()
  else if (operation == SUBTRACT) addition(rightSign ^ 1)
  else division()
}

/** The square root of the left operand, which is no NaN. */
export function squareRoot(): void {
  if (leftClass == ZERO) setZero(leftSign)
  else if (leftSign) setInvalid()
  else if (leftClass == INFINITY) setInfinity(0)
  else if (!denormalStopsUnary()) rootFinite()
}

/**
 * The root of `radicand`:0 (128 bits, at least 2^126): 64 bits and what tells a half apart.
 * The processor's own 53-bit root is a first value; one step of Newton's brings it within one unit.
 */
function rootFinite(): void {
  const odd = leftExponent & 1
  const radicand = odd ? leftSignificand : leftSignificand >> 1
  const radicandLow: u64 = odd ? 0 : leftSignificand << 63
  // 4294967296 is 2^32: the root of the 2^64 that the lower half scales by. Clamped, as the conversion may round up to 2^64.
  const first = sqrt<f64>(f64(radicand)) * 4294967296.0
  let root: u64 = first >= 18446744073709549568.0 ? 0xfffffffffffff800 : u64(first)
  const squareLow = multiplyWide(root, root)
  const differenceLow = radicandLow - squareLow
  const differenceHigh = i64(radicand - upper - u64(radicandLow < squareLow))
  const step = (f64(differenceHigh) * 18446744073709551616.0 + f64(differenceLow)) / (2.0 * f64(root))
  const corrected = root + i64(floor<f64>(step))
  // Past 2^64 - 1 there is only the largest root.
  root = step > 0 && corrected < root ? ~u64(0) : corrected
  let low = multiplyWide(root, root)
  while (upper > radicand || (upper == radicand && low > radicandLow)) {
    root--
    low = multiplyWide(root, root)
  }
  let restLow = radicandLow - low
  let restHigh = radicand - upper - u64(radicandLow < low)
  // (root + 1)^2 = root^2 + 2 root + 1
  while (restHigh > root >> 63 || (restHigh == root >> 63 && restLow > root << 1)) {
    const nextLow = restLow - ((root << 1) | 1)
    restHigh = restHigh - (root >> 63) - u64(restLow < ((root << 1) | 1))
    restLow = nextLow
    root++
  }
  // A half more would need a rest above `root`; it cannot be equal to one, as (root + 1/2)^2 is no integer.
  const rest: u64 =
    (restHigh | restLow) == 0 ? 0 : restHigh != 0 || restLow > root ? 0xc000000000000000 : 0x4000000000000000
  setResult(0, leftExponent >> 1, root, rest)
}

/** How left stands to right, neither being a NaN: -1, 0 or 1. */
export function compareFinite(): i32 {
  if (leftClass == ZERO && rightClass == ZERO) return 0
  if (leftClass == ZERO) return rightSign ? 1 : -1
  if (rightClass == ZERO || leftSign != rightSign) return leftSign ? -1 : 1
  let order: i32
  if (leftClass != rightClass) order = leftClass > rightClass ? 1 : -1
  else if (leftClass == INFINITY) order = 0
  else if (leftExponent != rightExponent) order = leftExponent > rightExponent ? 1 : -1
  else order = i32(leftSignificand > rightSignificand) - i32(leftSignificand < rightSignificand)
  return leftSign ? -order : order
}

/** The NaN in the left operand made quiet. */
export function quietLeft(): void {
  if (leftClass == UNSUPPORTED) setInvalid()
  else {
    if (leftClass == SNAN) raise(IE)
    setNaN(leftSign, leftSignificand | QUIET_BIT)
  }
}
