/** 128-bit fractions, high:low of 2^128, for the transcendental functions. Truncating: good to a few units of 2^-128. */
import { divideWide, multiplyHigh, multiplyWide, upper } from './wide'

/** The last result. */
export let high: u64 = 0
export let low: u64 = 0

export function setFraction(newHigh: u64, newLow: u64): void {
  high = newHigh
  low = newLow
}

/** left * right. */
export function multiplyFraction(leftHigh: u64, leftLow: u64, rightHigh: u64, rightLow: u64): void {
  const cross1 = multiplyHigh(leftHigh, rightLow)
  const cross2 = multiplyHigh(leftLow, rightHigh)
  let sum = multiplyWide(leftHigh, rightHigh)
  let top = upper
  sum += cross1
  top += u64(sum < cross1)
  sum += cross2
  top += u64(sum < cross2)
  high = top
  low = sum
}

/** left / right for left < right and right at least a half. Two digits of 64 bits, the second one not corrected. */
export function divideFraction(leftHigh: u64, leftLow: u64, rightHigh: u64, rightLow: u64): void {
  let digit = leftHigh >= rightHigh ? ~u64(0) : divideWide(leftHigh, leftLow, rightHigh)
  // rest = left * 2^64 - digit * right, of 192 bits
  const productLow = multiplyWide(digit, rightLow)
  const carry = upper
  let productMiddle = multiplyWide(digit, rightHigh)
  let productHigh = upper
  productMiddle += carry
  productHigh += u64(productMiddle < carry)
  let restLow = u64(0) - productLow
  const borrow = u64(productLow != 0)
  const middle = leftLow - productMiddle
  let restMiddle = middle - borrow
  let restHigh = leftHigh - productHigh - u64(leftLow < productMiddle) - u64(middle < borrow)
  while (i64(restHigh) < 0) {
    digit--
    restLow += rightLow
    const addend = rightHigh + u64(restLow < rightLow)
    restMiddle += addend
    restHigh += u64(restMiddle < addend) + u64(addend < rightHigh)
  }
  high = digit
  low = restMiddle >= rightHigh ? ~u64(0) : divideWide(restMiddle, restLow, rightHigh)
}

/** The fraction shifted right. */
export function shiftFraction(count: u32): void {
  if (count == 0) return
  if (count < 64) {
    low = (low >> count) | (high << (64 - count))
    high >>= count
  } else {
    low = count < 128 ? high >> (count - 64) : 0
    high = 0
  }
}

/** Shifts left until bit 127 is set; by how many bits. The fraction is not zero. */
export function normalizeFraction(): u32 {
  if (high == 0) {
    const zeros = u32(clz(low))
    high = low << zeros
    low = 0
    return zeros + 64
  }
  const zeros = u32(clz(high))
  if (zeros) {
    high = (high << zeros) | (low >> (64 - zeros))
    low <<= zeros
  }
  return zeros
}

/** 1 - fraction, just below 1 for a fraction of zero. */
export function complementFraction(): void {
  if ((high | low) == 0) {
    high = ~u64(0)
    low = ~u64(0)
  } else {
    high = ~high + u64(low == 0)
    low = u64(0) - low
  }
}

/** Adds to the fraction. */
export function addFraction(addHigh: u64, addLow: u64): void {
  const sum = low + addLow
  setFraction(high + addHigh + u64(sum < addLow), sum)
}

export function subtractFraction(subtractHigh: u64, subtractLow: u64): void {
  setFraction(high - subtractHigh - u64(low < subtractLow), low - subtractLow)
}
