/** 128-bit pieces that wasm lacks: products, quotients and shifts. The upper half of a result is left in `upper`. */

export let upper: u64 = 0
/** What is left over by the last `divideWide`. */
export let remainder: u64 = 0

/** left * right: returns the lower half, leaves the upper half in `upper`. */
export function multiplyWide(left: u64, right: u64): u64 {
  const left0 = left & 0xffffffff
  const left1 = left >> 32
  const right0 = right & 0xffffffff
  const right1 = right >> 32
  const low = left0 * right0
  const middle = left1 * right0 + (low >> 32)
  const cross = left0 * right1 + (middle & 0xffffffff)
  upper = left1 * right1 + (middle >> 32) + (cross >> 32)
  return (cross << 32) | (low & 0xffffffff)
}

/** The upper half of left * right. */
export function multiplyHigh(left: u64, right: u64): u64 {
  multiplyWide(left, right)
  return upper
}

/**
 * (high:low) / divisor for a divisor with bit 63 set and high < divisor; the remainder is left in `remainder`.
 * Two digits of 32 bits (Knuth, "The Art of Computer Programming" Vol. 2, 4.3.1, algorithm D).
 */
export function divideWide(high: u64, low: u64, divisor: u64): u64 {
  const divisor1 = divisor >> 32
  const divisor0 = divisor & 0xffffffff
  let digit1 = high / divisor1
  let rest = high - digit1 * divisor1
  while (digit1 >> 32 || digit1 * divisor0 > ((rest << 32) | (low >> 32))) {
    digit1--
    rest += divisor1
    if (rest >> 32) break
  }
  const middle = ((high << 32) | (low >> 32)) - digit1 * divisor
  let digit0 = middle / divisor1
  rest = middle - digit0 * divisor1
  while (digit0 >> 32 || digit0 * divisor0 > ((rest << 32) | (low & 0xffffffff))) {
    digit0--
    rest += divisor1
    if (rest >> 32) break
  }
  remainder = ((middle << 32) | (low & 0xffffffff)) - digit0 * divisor
  return (digit1 << 32) + digit0
}

/** high:low shifted right by `count` (0 or more): the upper half of the result. */
export function shiftRightHigh(high: u64, count: u32): u64 {
  return count < 64 ? high >> count : 0
}

/** high:low shifted right: the lower half, with everything shifted out jammed into bit 0. */
export function shiftRightJam(high: u64, low: u64, count: u32): u64 {
  if (count == 0) return low
  if (count < 64) return (high << (64 - count)) | (low >> count) | u64(low << (64 - count) != 0)
  if (count == 64) return high | u64(low != 0)
  if (count < 128) return (high >> (count - 64)) | u64(((high << (128 - count)) | low) != 0)
  return u64((high | low) != 0)
}
