/** The comparison in PCMPESTRI and its kin: two strings of bytes or words against each other. (SDM Vol. 1, "Operation of PCMPISTRI...") */

/** Element `index` of 16 bytes, extended as the control byte says: bit 0 words, bit 1 signed. */
function element(low: u64, high: u64, index: u32, control: u32): i32 {
  if (control & 1) {
    const bits = u32((index < 4 ? low : high) >> ((index & 3) << 4)) & 0xffff
    return control & 2 ? i32(bits << 16) >> 16 : i32(bits)
  }
  const bits = u32((index < 8 ? low : high) >> ((index & 7) << 3)) & 0xff
  return control & 2 ? i32(bits << 24) >> 24 : i32(bits)
}

/**
 * Result 2: a bit for each element of the second string. Lengths are in elements, at most 8 or 16. Bits 3:2 of `control` choose equal any,
 * ranges, equal each, equal ordered; bits 5:4 the polarity.
 */
export function text_compare(
  control: u32,
  firstLow: u64,
  firstHigh: u64,
  firstLength: u32,
  secondLow: u64,
  secondHigh: u64,
  secondLength: u32,
): u32 {
  const count: u32 = control & 1 ? 8 : 16
  const mode = (control >> 2) & 3
  let result: u32 = 0
  for (let at: u32 = 0; at < count; at++) {
    let hit = false
    if (mode == 0) {
      if (at < secondLength) {
        const sought = element(secondLow, secondHigh, at, control)
        for (let n: u32 = 0; n < firstLength && !hit; n++) hit = element(firstLow, firstHigh, n, control) == sought
      }
    } else if (mode == 1) {
      if (at < secondLength) {
        const sought = element(secondLow, secondHigh, at, control)
        for (let n: u32 = 0; n + 1 < firstLength && !hit; n += 2) {
          hit =
            element(firstLow, firstHigh, n, control) <= sought && sought <= element(firstLow, firstHigh, n + 1, control)
        }
      }
    } else if (mode == 2) {
      // Beyond the end of both is equal.
      if (at < firstLength && at < secondLength)
        hit = element(firstLow, firstHigh, at, control) == element(secondLow, secondHigh, at, control)
      else hit = at >= firstLength && at >= secondLength
    } else {
      hit = true
      for (let n: u32 = 0; n < firstLength && at + n < count && hit; n++) {
        hit =
          at + n < secondLength &&
          element(firstLow, firstHigh, n, control) == element(secondLow, secondHigh, at + n, control)
      }
    }
    if (hit) result |= 1 << at
  }
  const polarity = (control >> 4) & 3
  if (polarity == 1) result ^= (1 << count) - 1
  else if (polarity == 3) result ^= (1 << secondLength) - 1
  return result
}
