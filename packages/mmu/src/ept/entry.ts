/** Levels and page sizes of EPT tables. (SDM Vol. 3C, "EPT Translation Mechanism") */

/** Levels: 4 is the root, 1 holds 4 KiB leaves, 2 may hold 2 MiB ones. */
export const ROOT_LEVEL = 4
export const LARGE_SIZE = 0x200000
/** Frames in a large page. */
export const LARGE_FRAMES = 512
