/** FPATAN, a whole instruction. */
import { denormalStops, propagateLarger } from './arithmetic'
import {
  addFraction,
  complementFraction,
  divideFraction,
  high,
  low,
  multiplyFraction,
  normalizeFraction,
  setFraction,
  shiftFraction,
  subtractFraction,
} from './fraction'
import {
  INFINITY,
  leftClass,
  leftExponent,
  leftSign,
  leftSignificand,
  NORMAL,
  QNAN,
  rightClass,
  rightExponent,
  rightSign,
  rightSignificand,
  setResult,
  setZero,
  ZERO,
} from './number'
import { arcTangentOfEighths, arcTangentSeries, QUARTER_PI_HIGH, QUARTER_PI_LOW } from './series'
import { deliver, enter, isEmpty, leftST, rightST, roundExtended, underflowInto } from './stack'
import { multiplyWide, upper } from './wide'
import { setFromFraction } from './x87-transcendental'
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
