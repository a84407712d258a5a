/** x87 arithmetic, whole instructions: operands and results on the register stack. They return 1 when an exception is pending. */
import {
  denormalStopsUnary,
  DIVIDE_REVERSED,
  operate,
  propagateLarger,
  quietLeft,
  squareRoot,
  SUBTRACT_REVERSED,
} from './arithmetic'
import { EXTENDED_MAXIMUM, EXTENDED_MINIMUM, right32, right64, rightInteger } from './format'
import { FPR, FPU_STATUS, FPU_TAG } from './layout'
import {
  INFINITY,
  INTEGER_BIT,
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
  stopped,
  swapOperands,
} from './number'
import { roundResult, roundToIntegral } from './round'
import {
  deliver,
  enter,
  isEmpty,
  leave,
  leftST,
  popTop,
  precision,
  rightST,
  signExponentOf,
  significandOf,
  underflowInto,
  writeST,
} from './stack'
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
