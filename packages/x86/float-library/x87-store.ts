/**
 * x87 stores, whole instructions. They leave the value in the block's `value` slot and return 1 when an exception is pending, with 2
 * added when there is nothing to write to memory. Since they pop, the caller makes sure beforehand that memory can be written.
 */
import { quietLeft } from './arithmetic'
import { DOUBLE_MAXIMUM, DOUBLE_MINIMUM, result32, result64, SINGLE_MAXIMUM, SINGLE_MINIMUM } from './format'
import { VALUE } from './layout'
import {
  beginLane,
  copyLeftToResult,
  dropPrecision,
  IE,
  leftClass,
  leftSign,
  masks,
  NORMAL,
  OE,
  QNAN,
  raise,
  raised,
  resultClass,
  rounding,
  setRoundedUp,
  stopped,
  TRUNCATE,
  UE,
} from './number'
import { roundResult, toInteger } from './round'
import { enter, isEmpty, leave, leftST, pop, signExponentOf, significandOf, stackUnderflow } from './stack'
const NOTHING_TO_STORE: i32 = 2

function storedNothing(cpu: u32): i32 {
  return leave(cpu) | NOTHING_TO_STORE
}

function stored(cpu: u32, pops: bool): i32 {
  if (pops) pop(cpu)
  return leave(cpu)
}

/** ST(0) rounded to a narrower format. Whether there is a result. */
function narrow(cpu: u32, precision: u32, minimum: i32, maximum: i32): bool {
  leftST(cpu, 0)
  if (leftClass >= QNAN) quietLeft()
  else copyLeftToResult()
  if (resultClass == NORMAL && !stopped()) roundResult(precision, minimum, maximum)
  // With memory as the destination an unmasked overflow or underflow stores nothing. (SDM Vol. 1, "Numeric Overflow Exception")
  if (!(raised & ~masks & (IE | OE | UE))) return true
  dropPrecision()
  return false
}

/** FST m32, FSTP m32. */
export function x87_store_f32(cpu: u32, pops: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) {
    if (!stackUnderflow()) return storedNothing(cpu)
    store<u32>(cpu, 0xffc00000, VALUE)
    return stored(cpu, pops)
  }
  if (!narrow(cpu, 24, SINGLE_MINIMUM, SINGLE_MAXIMUM)) return storedNothing(cpu)
  store<u32>(cpu, result32(), VALUE)
  return stored(cpu, pops)
}

/** FST m64, FSTP m64. */
export function x87_store_f64(cpu: u32, pops: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) {
    if (!stackUnderflow()) return storedNothing(cpu)
    store<u64>(cpu, 0xfff8000000000000, VALUE)
    return stored(cpu, pops)
  }
  if (!narrow(cpu, 53, DOUBLE_MINIMUM, DOUBLE_MAXIMUM)) return storedNothing(cpu)
  store<u64>(cpu, result64(), VALUE)
  return stored(cpu, pops)
}

/** FSTP m80: ten bytes, bit for bit. */
export function x87_store_f80(cpu: u32): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) {
    if (!stackUnderflow()) return storedNothing(cpu)
    store<u64>(cpu, 0xc000000000000000, VALUE)
    store<u16>(cpu, 0xffff, VALUE + 8)
    return stored(cpu, true)
  }
  store<u64>(cpu, significandOf(cpu, 0), VALUE)
  store<u16>(cpu, signExponentOf(cpu, 0), VALUE + 8)
  return stored(cpu, true)
}

/** FIST, FISTP, FISTTP (`truncate`) to `bits` = 16, 32 or 64; the value is sign-extended to 64. */
export function x87_store_integer(cpu: u32, bits: u32, truncate: bool, pops: bool): i32 {
  enter(cpu)
  if (isEmpty(cpu, 0)) {
    if (!stackUnderflow()) return storedNothing(cpu)
    store<i64>(cpu, i64.MIN_VALUE >> (64 - bits), VALUE)
    return stored(cpu, pops)
  }
  leftST(cpu, 0)
  const value = toInteger(bits, truncate ? TRUNCATE : rounding)
  if (stopped()) return storedNothing(cpu)
  store<i64>(cpu, value, VALUE)
  return stored(cpu, pops)
}

const LARGEST_BCD: u64 = 999999999999999999

/** FBSTP: ten bytes. */
export function x87_store_bcd(cpu: u32): i32 {
  enter(cpu)
  let invalid = false
  let value: i64 = 0
  let sign: u32 = 0
  if (isEmpty(cpu, 0)) {
    if (!stackUnderflow()) return storedNothing(cpu)
    invalid = true
  } else {
    leftST(cpu, 0)
    sign = leftSign
    value = toInteger(64, rounding)
    const magnitude = value < 0 ? u64(0) - u64(value) : u64(value)
    if (magnitude > LARGEST_BCD) {
      beginLane()
      setRoundedUp(false)
      raise(IE)
    }
    if (stopped()) return storedNothing(cpu)
    invalid = (raised & IE) != 0
  }
  if (invalid) {
    store<u64>(cpu, 0xc000000000000000, VALUE)
    store<u16>(cpu, 0xffff, VALUE + 8)
    return stored(cpu, true)
  }
  let rest = value < 0 ? u64(0) - u64(value) : u64(value)
  for (let byte: u32 = 0; byte < 9; byte++) {
    const pair = rest % 100
    rest /= 100
    store<u8>(cpu + byte, (u32(pair / 10) << 4) | u32(pair % 10), VALUE)
  }
  store<u8>(cpu, sign << 7, VALUE + 9)
  return stored(cpu, true)
}
