/** Which segment descriptors a deprivileged kernel may have. (Xen, "check_descriptor"; SDM Vol. 3A, "Segment Descriptors") */

const PRESENT = 1 << 15
const SEGMENT = 1 << 12
const DPL = 3 << 13
const ACCESSED = 1 << 8
const CALL_GATE = 12

/** Upper half as it is to stand in the table, or undefined: refused. What is not present faults at every use, so it may hold anything. */
export function checkedDescriptor(high: number): number | undefined {
  if (!(high & PRESENT)) return high | 0
  // Marked accessed now, so that the processor need not write to the table.
  if (high & SEGMENT) return high | DPL | ACCESSED | 0
  const type = (high >>> 8) & 0xf
  // The second half of a wide descriptor.
  if (type === 0) return high | DPL | 0
  // With a DPL of 0 every use of a gate faults.
  return type === CALL_GATE ? (high & ~DPL) | 0 : undefined
}
