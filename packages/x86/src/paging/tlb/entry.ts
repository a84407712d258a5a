/** Where the bank in use has the entry for a linear address, in code that is generated. The same as `entryAt` in tlb.ts. */
import type { IrBuilder } from '../../ir/builder.ts'
import type { Value } from '../../ir/nodes.ts'
import { S, TLB, TLB_ENTRIES } from '../../state/layout.ts'

const PAGE_BITS = 12
const ENTRY_BITS = Math.log2(TLB.entry)

export function tlbEntry(b: IrBuilder, linear: Value): Value {
  const index = b.and(b.shrU(b.wrap(linear), PAGE_BITS - ENTRY_BITS), (TLB_ENTRIES - 1) << ENTRY_BITS)
  return b.add(b.slot(S.tlb, 'i32'), index)
}
