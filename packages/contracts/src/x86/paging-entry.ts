/** Bits of paging-structure entries, and which entry of a table an address selects. (SDM Vol. 3A, "Paging") */

/** Bits 31:0 of a first-stage entry. */
export const PAGE_ENTRY = {
  present: 1,
  writable: 2,
  user: 4,
  writeThrough: 8,
  cacheDisable: 0x10,
  accessed: 0x20,
  dirty: 0x40,
  /** Above level 1: the entry maps a page. */
  large: 0x80,
  global: 0x100,
  /** For software. */
  available: 0xe00,
  /** Bit 63, as a bit of the upper half. */
  noExecuteHigh: 0x8000_0000 | 0,
} as const

/** Second-stage entries. (SDM Vol. 3C, "Format of Extended Page-Table Entries") */
export const EPT_ENTRY = {
  read: 1,
  write: 2,
  execute: 4,
  /** An entry with none of these is not present. */
  rights: 7,
  /** Memory type of a leaf, bits 5:3. */
  writeBack: 6 << 3,
  large: 0x80,
  accessed: 0x100,
  dirty: 0x200,
} as const

/** Index of an address's entry in its table of 8-byte entries: level 1 has the pages, 5 is the root of 5-level paging. */
export const tableIndex = (low: number, high: number, level: number): number => {
  switch (level) {
    case 1:
      return (low >>> 12) & 0x1ff
    case 2:
      return (low >>> 21) & 0x1ff
    case 3:
      return ((high << 2) | (low >>> 30)) & 0x1ff
    case 4:
      return (high >>> 7) & 0x1ff
    default:
      return (high >>> 16) & 0x1ff
  }
}
