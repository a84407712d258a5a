/** First-stage entries as guest and hardware write them: what they allow, and where an address' entry lies. (SDM Vol. 3A, "Paging") */

import { PAGE_ENTRY, tableIndex } from '@nonroot/contracts'

/** What a translation allows, all levels together. The first two are the bits of the entries. */
export const Access = {
  write: PAGE_ENTRY.writable,
  user: PAGE_ENTRY.user,
  execute: 1,
  all: PAGE_ENTRY.writable | PAGE_ENTRY.user | 1,
} as const

/**
 * Index of an address' entry in its table of `level`. `wide` entries have eight bytes (PAE, 4-level), others four (32-bit). A PAE address has no
 * upper half, so that level 3 comes out as its bits 31:30.
 */
export const entryIndex = (wide: boolean, low: number, high: number, level: number): number =>
  wide ? tableIndex(low, high, level) : level === 1 ? (low >>> 12) & 0x3ff : low >>> 22

/** Bytes that one entry of `level` maps. */
export const entrySpan = (wide: boolean, level: number): number =>
  wide ? 4096 * 512 ** (level - 1) : 4096 * 1024 ** (level - 1)
