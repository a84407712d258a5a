/** @hot MSR bitmaps: which RDMSR and WRMSR exit. (SDM Vol. 3C, "MSR-Bitmap Address") */

/** Byte offsets of the four parts in the frame; each covers 0x2000 MSRs. */
const PARTS = { readLow: 0, readHigh: 1024, writeLow: 2048, writeHigh: 3072 } as const
const RANGE = 0x2000
const HIGH_START = 0xc000_0000

/** Bit number of an MSR's access within the frame, or -1 for an MSR that no bitmap covers: it always exits. */
function bitOf(index: number, write: boolean): number {
  if (index >>> 0 < RANGE) return (write ? PARTS.writeLow : PARTS.readLow) * 8 + index
  const high = (index - HIGH_START) >>> 0
  if (high < RANGE) return (write ? PARTS.writeHigh : PARTS.readHigh) * 8 + high
  return -1
}

/** Whether the access exits. `bitmap` is the frame's byte address in `bytes`. */
export function msrExits(bytes: Uint8Array, bitmap: number, index: number, write: boolean): boolean {
  const bit = bitOf(index, write)
  return bit < 0 || ((bytes[bitmap + (bit >>> 3)]! >>> (bit & 7)) & 1) === 1
}

/** Returns false for an MSR that no bitmap covers. */
export function setMsrExits(bytes: Uint8Array, bitmap: number, index: number, write: boolean, exits: boolean): boolean {
  const bit = bitOf(index, write)
  if (bit < 0) return false
  if (exits) bytes[bitmap + (bit >>> 3)]! |= 1 << (bit & 7)
  else bytes[bitmap + (bit >>> 3)]! &= ~(1 << (bit & 7))
  return true
}
