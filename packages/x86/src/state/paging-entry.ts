/** The physical address width, and page frame numbers. Facts only; bits of entries are in the contracts. (SDM Vol. 3A, "Paging") */

/** MAXPHYADDR. 40, so that a page frame number is a small integer (28 bits). CPUID says the same. */
export const MAX_PHYSICAL_BITS = 40
/** Address bits in the upper half of an entry. */
export const FRAME_HIGH = (1 << (MAX_PHYSICAL_BITS - 32)) - 1

/** Page frame number out of an entry's halves. */
export const frameOf = (low: number, high: number): number => (low >>> 12) | ((high & FRAME_HIGH) << 20)
