/** First-stage entries as guest and hardware write them: their bits, and where an address' entry lies. (SDM Vol. 3A, "Paging") */

export const PRESENT = 1 << 0
export const WRITABLE = 1 << 1
export const USER = 1 << 2
export const ACCESSED = 1 << 5
export const DIRTY = 1 << 6
/** Bit 7 above level 1: the entry maps a page. */
export const LARGE = 1 << 7
/** Bit 63, in the upper word of an eight-byte entry. */
export const NO_EXECUTE = 0x8000_0000 | 0

/** What a translation allows, all levels together. The first two are the bits of the entries. */
export const Access = { write: WRITABLE, user: USER, execute: 1, all: WRITABLE | USER | 1 } as const

/**
 * Index of an address' entry in its table of `level`. `wide` entries have eight bytes (PAE, 4-level), others four (32-bit). A PAE address has no
 * upper half, so that level 3 comes out as its bits 31:30.
 */
export const entryIndex = (wide: boolean, low: number, high: number, level: number): number =>
  wide
    ? level === 1
      ? (low >>> 12) & 0x1ff
      : level === 2
        ? (low >>> 21) & 0x1ff
        : level === 3
          ? ((high << 2) | (low >>> 30)) & 0x1ff
          : (high >>> 7) & 0x1ff
    : level === 1
      ? (low >>> 12) & 0x3ff
      : low >>> 22

/** Bytes that one entry of `level` maps. */
export const entrySpan = (wide: boolean, level: number): number =>
  wide ? 4096 * 512 ** (level - 1) : 4096 * 1024 ** (level - 1)
