/** Between the formats in registers and memory and the number of number.ts. Knows bits, not arithmetic. */
import {
  denormalsAreZero,
  INFINITY,
  INTEGER_BIT,
  NORMAL,
  QNAN,
  QUIET_BIT,
  resultClass,
  resultExponent,
  resultSign,
  resultSignificand,
  setLeft,
  setRight,
  SNAN,
  UNSUPPORTED,
  ZERO,
} from './number'

export const SINGLE_MINIMUM: i32 = -126
export const SINGLE_MAXIMUM: i32 = 127
export const DOUBLE_MINIMUM: i32 = -1022
export const DOUBLE_MAXIMUM: i32 = 1023
export const EXTENDED_MINIMUM: i32 = -16382
export const EXTENDED_MAXIMUM: i32 = 16383

function nanClass(significand: u64): i32 {
  return significand & QUIET_BIT ? QNAN : SNAN
}

/** Takes a value apart into the left operand. `fraction` is left-justified below bit 63; `top` is the largest biased exponent. */
function unpackLeft(sign: u32, biased: i32, fraction: u64, top: i32, minimum: i32): void {
  if (u32(biased - 1) < u32(top - 1)) {
    setLeft(NORMAL, sign, biased + minimum - 1, fraction | INTEGER_BIT, false)
  } else if (biased == 0) {
    if (fraction == 0) setLeft(ZERO, sign, 0, 0, false)
    else if (denormalsAreZero) setLeft(ZERO, sign, 0, 0, false)
    else {
      const shift = clz(fraction)
      setLeft(NORMAL, sign, minimum - i32(shift), fraction << shift, true)
    }
  } else if (fraction == 0) setLeft(INFINITY, sign, 0, INTEGER_BIT, false)
  else setLeft(nanClass(fraction), sign, 0, fraction | INTEGER_BIT, false)
}

function unpackRight(sign: u32, biased: i32, fraction: u64, top: i32, minimum: i32): void {
  if (u32(biased - 1) < u32(top - 1)) {
    setRight(NORMAL, sign, biased + minimum - 1, fraction | INTEGER_BIT, false)
  } else if (biased == 0) {
    if (fraction == 0) setRight(ZERO, sign, 0, 0, false)
    else if (denormalsAreZero) setRight(ZERO, sign, 0, 0, false)
    else {
      const shift = clz(fraction)
      setRight(NORMAL, sign, minimum - i32(shift), fraction << shift, true)
    }
  } else if (fraction == 0) setRight(INFINITY, sign, 0, INTEGER_BIT, false)
  else setRight(nanClass(fraction), sign, 0, fraction | INTEGER_BIT, false)
}

export function left32(bits: u32): void {
  unpackLeft(bits >> 31, i32((bits >> 23) & 0xff), u64(bits & 0x7fffff) << 40, 0xff, SINGLE_MINIMUM)
}

export function right32(bits: u32): void {
  unpackRight(bits >> 31, i32((bits >> 23) & 0xff), u64(bits & 0x7fffff) << 40, 0xff, SINGLE_MINIMUM)
}

export function left64(bits: u64): void {
  unpackLeft(u32(bits >> 63), i32(bits >> 52) & 0x7ff, (bits << 11) & ~INTEGER_BIT, 0x7ff, DOUBLE_MINIMUM)
}

export function right64(bits: u64): void {
  unpackRight(u32(bits >> 63), i32(bits >> 52) & 0x7ff, (bits << 11) & ~INTEGER_BIT, 0x7ff, DOUBLE_MINIMUM)
}

/** What kind of number a double extended value is that is not a plain normal one. */
function extendedClass(biased: i32, significand: u64): i32 {
  if (biased == 0) return significand == 0 ? ZERO : NORMAL
  if (!(significand & INTEGER_BIT)) return UNSUPPORTED
  if (biased != 0x7fff) return NORMAL
  return significand == INTEGER_BIT ? INFINITY : nanClass(significand)
}

export function left80(signExponent: u32, significand: u64): void {
  const biased = i32(signExponent & 0x7fff)
  const sign = (signExponent >> 15) & 1
  if (u32(biased - 1) < 0x7ffe && i64(significand) < 0) {
    setLeft(NORMAL, sign, biased - 16383, significand, false)
    return
  }
  const kind = extendedClass(biased, significand)
  if (kind == NORMAL) {
    // A pseudo-denormal has the exponent of the smallest normal number, as denormals have. (SDM Vol. 1, "Pseudo-denormals")
    const shift = clz(significand)
    setLeft(NORMAL, sign, EXTENDED_MINIMUM - i32(shift), significand << shift, true)
  } else setLeft(kind, sign, 0, significand, false)
}

export function right80(signExponent: u32, significand: u64): void {
  const biased = i32(signExponent & 0x7fff)
  const sign = (signExponent >> 15) & 1
  if (u32(biased - 1) < 0x7ffe && i64(significand) < 0) {
    setRight(NORMAL, sign, biased - 16383, significand, false)
    return
  }
  const kind = extendedClass(biased, significand)
  if (kind == NORMAL) {
    const shift = clz(significand)
    setRight(NORMAL, sign, EXTENDED_MINIMUM - i32(shift), significand << shift, true)
  } else setRight(kind, sign, 0, significand, false)
}

/** An integer is a normal number or zero. */
export function leftInteger(value: i64): void {
  if (value == 0) setLeft(ZERO, 0, 0, 0, false)
  else {
    const sign = u32(value < 0)
    const magnitude = sign ? u64(0) - u64(value) : u64(value)
    const shift = clz(magnitude)
    setLeft(NORMAL, sign, 63 - i32(shift), magnitude << shift, false)
  }
}

export function rightInteger(value: i64): void {
  if (value == 0) setRight(ZERO, 0, 0, 0, false)
  else {
    const sign = u32(value < 0)
    const magnitude = sign ? u64(0) - u64(value) : u64(value)
    const shift = clz(magnitude)
    setRight(NORMAL, sign, 63 - i32(shift), magnitude << shift, false)
  }
}

/** The result after rounding: a number below the smallest normal one has its exponent and bit 63 clear. */
export function result32(): u32 {
  const sign = resultSign << 31
  if (resultClass == ZERO) return sign
  if (resultClass != NORMAL) return sign | 0x7f800000 | (u32(resultSignificand >> 40) & 0x7fffff)
  const biased = resultSignificand & INTEGER_BIT ? u32(resultExponent - SINGLE_MINIMUM + 1) & 0xff : 0
  return sign | (biased << 23) | (u32(resultSignificand >> 40) & 0x7fffff)
}

export function result64(): u64 {
  const sign = u64(resultSign) << 63
  if (resultClass == ZERO) return sign
  if (resultClass != NORMAL) return sign | 0x7ff0000000000000 | ((resultSignificand >> 11) & 0xfffffffffffff)
  const biased = resultSignificand & INTEGER_BIT ? u64(resultExponent - DOUBLE_MINIMUM + 1) & 0x7ff : 0
  return sign | (biased << 52) | ((resultSignificand >> 11) & 0xfffffffffffff)
}

/** Sign and exponent of the result as a double extended; its significand is `resultSignificand` as it stands. */
export function resultSignExponent(): u32 {
  const sign = resultSign << 15
  if (resultClass == NORMAL) {
    return sign | (resultSignificand & INTEGER_BIT ? u32(resultExponent - EXTENDED_MINIMUM + 1) & 0x7fff : 0)
  }
  return resultClass == ZERO ? sign : sign | 0x7fff
}
