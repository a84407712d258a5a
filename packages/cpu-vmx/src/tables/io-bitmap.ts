/** @hot I/O bitmaps: which port accesses exit. (SDM Vol. 3C, "I/O-Bitmap Addresses") */

/** Bitmap A covers ports 0 to 0x7fff, B the rest: bit n of byte m is port 8m + n. */
export const PORTS_PER_BITMAP = 0x8000

/** Whether an access of `size` bytes at `port` exits. Bitmaps are given as byte addresses in `bytes`. An access past the last port always does. */
export function portExits(bytes: Uint8Array, bitmapA: number, bitmapB: number, port: number, size: number): boolean {
  if (port + size > 0x1_0000) return true
  for (let at = port; at < port + size; at++) {
    const bitmap = at < PORTS_PER_BITMAP ? bitmapA : bitmapB
    if ((bytes[bitmap + ((at & 0x7fff) >>> 3)]! >>> (at & 7)) & 1) return true
  }
  return false
}

/** Sets whether accesses to `[port, port + count)` exit. */
export function setPortExits(
  bytes: Uint8Array,
  bitmapA: number,
  bitmapB: number,
  port: number,
  count: number,
  exits: boolean,
): void {
  for (let at = port; at < port + count; at++) {
    const byte = (at < PORTS_PER_BITMAP ? bitmapA : bitmapB) + ((at & 0x7fff) >>> 3)
    if (exits) bytes[byte]! |= 1 << (at & 7)
    else bytes[byte]! &= ~(1 << (at & 7))
  }
}
