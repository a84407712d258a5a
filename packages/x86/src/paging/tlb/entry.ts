/** The TLB's entries as they are looked up: by generated code, and by TypeScript. What is entered, and when: tlb.ts, quick-fill.ts. */
import type { IrBuilder } from '../../ir/builder.ts'
import type { Value } from '../../ir/nodes.ts'
import { S, TLB, TLB_ENTRIES } from '../../state/layout.ts'

const PAGE_BITS = 12
const ENTRY_BITS = Math.log2(TLB.entry)

/** An entry has a tag for each. */
export type TlbAccess = 'read' | 'write' | 'execute'

// --- in generated code ---

/** Where the bank in use has the entry for a linear address. */
export function tlbEntry(b: IrBuilder, linear: Value): Value {
  const index = b.and(b.shrU(b.wrap(linear), PAGE_BITS - ENTRY_BITS), (TLB_ENTRIES - 1) << ENTRY_BITS)
  return b.add(b.slot(S.tlb, 'i32'), index)
}
export const tlbTag = (b: IrBuilder, entry: Value, access: TlbAccess): Value => b.rawLoad('i64', entry, TLB[access], 64)
/** The tag for a hit: the page of the last byte, so that an access that crosses a page misses. */
export const pageOfLastByte = (b: IrBuilder, linear: Value, bytes: number): Value =>
  b.and(bytes === 1 ? linear : b.add(linear, bytes - 1), -4096)
/** HPA behind a linear address whose tag fits. */
export const tlbHost = (b: IrBuilder, linear: Value, entry: Value): Value =>
  b.add(b.wrap(linear), b.rawLoad('i32', entry, TLB.addend, 32))
/** Whether what was entered in a generation, of the current context or of global pages, still holds. */
export const isCurrent = (b: IrBuilder, generation: Value): Value =>
  b.or(b.eq(generation, b.slot(S.generation, 'i32')), b.eq(generation, b.slot(S.globalGeneration, 'i32')))

// --- in TypeScript ---

/** Word index of a bank's entry for a linear address. */
export const entryAt = (bank: number, low: number): number =>
  (bank >>> 2) + ((low >>> PAGE_BITS) & (TLB_ENTRIES - 1)) * (TLB.entry >> 2)

/** HPA of a byte on a TLB hit, else -1. `tagAt`: TLB.read, write or execute. */
export function lookUp(i32: Int32Array, bank: number, low: number, high: number, tagAt: number): number {
  const at = entryAt(bank, low)
  const tag = at + (tagAt >> 2)
  if (i32[tag] !== (low & -4096) || i32[tag + 1] !== high) return -1
  return (low + i32[at + (TLB.addend >> 2)]!) >>> 0
}
