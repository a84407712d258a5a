/** The Internet checksum. (RFC 1071) @hot */

/** Sum of 16-bit words from `start` to `end`, not folded; an odd last byte is a word's first. */
export function sum(bytes: Uint8Array, start: number, end: number, initial = 0): number {
  let total = initial
  const even = end - ((end - start) & 1)
  for (let at = start; at < even; at += 2) total += (bytes[at]! << 8) | bytes[at + 1]!
  if (even < end) total += bytes[even]! << 8
  return total
}

/** To 16 bits. Exact up to 2^32 words. */
export function fold(total: number): number {
  let folded = total
  while (folded > 0xffff) folded = (folded & 0xffff) + Math.floor(folded / 0x10000)
  return folded
}

export const checksum = (bytes: Uint8Array, start: number, end: number, initial = 0): number =>
  ~fold(sum(bytes, start, end, initial)) & 0xffff

/** Of addresses (both, next to each other, at `at`), protocol and length. */
export const pseudoHeader = (
  bytes: Uint8Array,
  at: number,
  addresses: number,
  protocol: number,
  length: number,
): number => sum(bytes, at, at + addresses, protocol + (length & 0xffff) + (length >>> 16))
