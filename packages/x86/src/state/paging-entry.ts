/** Bits of paging-structure entries, and the physical address width. Facts only. (SDM Vol. 3A, "Paging") */

/** MAXPHYADDR. 40, so that a page frame number is a small integer (28 bits). CPUID says the same. */
export const MAX_PHYSICAL_BITS = 40
/** Address bits in the upper half of an entry. */
export const FRAME_HIGH = (1 << (MAX_PHYSICAL_BITS - 32)) - 1

export const ENTRY = {
  present: 1,
  writable: 2,
  user: 4,
  accessed: 0x20,
  dirty: 0x40,
  large: 0x80,
  global: 0x100,
} as const

/** EPT entries. (SDM Vol. 3C, "Format of Extended Page-Table Entries") */
export const EPT = { read: 1, write: 2, execute: 4, rights: 7, large: 0x80, accessed: 0x100, dirty: 0x200 } as const

/** Page frame number out of an entry's halves. */
export const frameOf = (low: number, high: number): number => (low >>> 12) | ((high & FRAME_HIGH) << 20)
