/** x87 arithmetic, whole instructions: operands and results on the register stack. They return 1 when an exception is pending. */
import {
  denormalStops,
  denormalStopsUnary,
  DIVIDE_REVERSED,
  operate,
  propagateLarger,
  quietLeft,
  squareRoot,
  SUBTRACT_REVERSED,
} from './arithmetic'
import { EXTENDED_MAXIMUM, EXTENDED_MINIMUM, leftInteger, right32, right64, rightInteger } from './format'
import { FPR, FPU_STATUS, FPU_TAG } from './layout'
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
  resultClass,
  resultExponent,
  resultSign,
  rightClass,
  rightExponent,
  rightSign,
  rightSignificand,
  rounding,
  setInfinity,
  setInvalid,
  setResult,
  setRoundedUp,
  setZero,
  stopped,
  swapOperands,
  ZE,
  ZERO,
} from './number'
import { roundResult, roundToIntegral } from './round'
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
  popTop,
  precision,
  rightST,
  rotate,
  roundExtended,
  signExponentOf,
  significandOf,
  stackOverflows,
  stackUnderflow,
  underflowInto,
  writeIndefinite,
  writeResult,
  writeST,
} from './stack'
import { divideWide, remainder } from './wide'
import { fastArithmetic } from './x87-fast'

/** The loaded operands' operation, result to ST(index). */
function arithmetic(cpu: u32, operation: i32, index: u32, pops: bool): i32 {
  if (operation == SUBTRACT_REVERSED || operation == DIVIDE_REVERSED) {
    swapOperands()
    operation--
  }
  if (leftClass >= QNAN || rightClass >= QNAN) propagateLarger()
  else operate(operation)
  if (resultClass == NORMAL && !stopped()) roundResult(precision, EXTENDED_MINIMUM, EXTENDED_MAXIMUM)
  return deliver(cpu, index, pops)
}

/**
 * ST(destination) = ST(destination) op ST(source). `operation` is the opcode's reg field: 0 add, 1 multiply, 4 subtract, 5 subtract
 * reversed (source - destination), 6 divide, 7 divide reversed.
 */
export function x87_arith(cpu: u32, operation: i32, destination: u32, source: u32, pops: bool): i32 {
  const top = load<u32>(cpu, FPU_STATUS) >> 11
  const left = (top + destination) & 7
  const right = (top + source) & 7
  const target = cpu + (left << 4)
  const other = cpu + (right << 4)
  if (
    (load<u32>(cpu, FPU_TAG) >> left) & (load<u32>(cpu, FPU_TAG) >> right) & 1 &&
    fastArithmetic(
      cpu,
      operation,
      target,
      load<u16>(target, FPR + 8),
      load<u64>(target, FPR),
      load<u16>(other, FPR + 8),
      load<u64>(other, FPR),
    )
  ) {
    if (pops) popTop(cpu)
    return 0
  }
  return exactArithmetic(cpu, operation, destination, source, pops)
}

function exactArithmetic(cpu: u32, operation: i32, destination: u32, source: u32, pops: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, destination) || isEmpty(cpu, source)) return underflowInto(cpu, destination, pops)
  leftST(cpu, destination)
  rightST(cpu, source)
  return arithmetic(cpu, operation, destination, pops)
}

/** The usual case with ST(0) and a value from memory, given as an extended one. */
function fastWithMemory(cpu: u32, operation: i32, signExponent: u32, significand: u64): bool {
  const top = (load<u32>(cpu, FPU_STATUS) >> 11) & 7
  if (!((load<u32>(cpu, FPU_TAG) >> top) & 1)) return false
  const target = cpu + (top << 4)
  return fastArithmetic(
    cpu,
    operation,
    target,
    load<u16>(target, FPR + 8),
    load<u64>(target, FPR),
    signExponent,
    significand,
  )
}

/** ST(0) = ST(0) op a single-precision value. */
export function x87_arith_f32(cpu: u32, operation: i32, bits: u32): i32 {
  const biased = (bits >> 23) & 0xff
  if (
    biased - 1 < 0xfe &&
    fastWithMemory(
      cpu,
      operation,
      ((bits >> 16) & 0x8000) | (biased + 16256),
      INTEGER_BIT | (u64(bits & 0x7fffff) << 40),
    )
  ) {
    return 0
  }
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  right32(bits)
  return arithmetic(cpu, operation, 0, false)
}

export function x87_arith_f64(cpu: u32, operation: i32, bits: u64): i32 {
  const biased = u32(bits >> 52) & 0x7ff
  if (
    biased - 1 < 0x7fe &&
    fastWithMemory(cpu, operation, (u32(bits >> 48) & 0x8000) | (biased + 15360), INTEGER_BIT | (bits << 11))
  ) {
    return 0
  }
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  right64(bits)
  return arithmetic(cpu, operation, 0, false)
}

/** ST(0) = ST(0) op an integer (FIADD and its kin), sign-extended. */
export function x87_arith_integer(cpu: u32, operation: i32, value: i64): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  rightInteger(value)
  return arithmetic(cpu, operation, 0, false)
}

/** FSQRT. */
export function x87_sqrt(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  if (leftClass >= QNAN) quietLeft()
  else squareRoot()
  if (resultClass == NORMAL && !stopped()) roundResult(precision, EXTENDED_MINIMUM, EXTENDED_MAXIMUM)
  return deliver(cpu, 0, false)
}

/** FCHS. */
export function x87_negate(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  writeST(cpu, 0, signExponentOf(cpu, 0) ^ 0x8000, significandOf(cpu, 0))
  return leave(cpu)
}

/** FABS. */
export function x87_absolute(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  writeST(cpu, 0, signExponentOf(cpu, 0) & 0x7fff, significandOf(cpu, 0))
  return leave(cpu)
}

/** FRNDINT. */
export function x87_round(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) return underflowInto(cpu, 0, false)
  leftST(cpu, 0)
  if (leftClass >= QNAN) quietLeft()
  else if (leftClass == INFINITY) setInfinity(leftSign)
  else {
    if (!denormalStopsUnary() && roundToIntegral(rounding)) raise(PE)
  }
  return deliver(cpu, 0, false)
}

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
