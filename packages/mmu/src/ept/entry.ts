/** EPT entries: their bits. Independent of tables. (SDM Vol. 3C, "EPT Translation Mechanism") */

export const EPT_READ = 1 << 0
export const EPT_WRITE = 1 << 1
export const EPT_EXECUTE = 1 << 2
/** An entry with none of these is not present. */
export const EPT_PRESENT = EPT_READ | EPT_WRITE | EPT_EXECUTE
/** Memory type of a leaf, bits 5:3: write-back is what RAM is. */
export const EPT_WRITE_BACK = 6 << 3
/** Bit 7 of a level-2 entry: it maps 2 MiB. */
export const EPT_LARGE = 1 << 7
export const EPT_ACCESSED = 1 << 8
export const EPT_DIRTY = 1 << 9

/** Levels: 4 is the root, 1 holds 4 KiB leaves, 2 may hold 2 MiB ones. */
export const ROOT_LEVEL = 4
export const LARGE_SIZE = 0x200000
/** Frames in a large page. */
export const LARGE_FRAMES = 512

/** Index of an address' entry in its table of `level`; the address comes as bits 31:0 and 47:32. */
export const eptIndex = (low: number, high: number, level: number): number =>
  level === 1
    ? (low >>> 12) & 0x1ff
    : level === 2
      ? (low >>> 21) & 0x1ff
      : level === 3
        ? ((high << 2) | (low >>> 30)) & 0x1ff
        : (high >>> 7) & 0x1ff
