/** The rest of a slice, for instructions that count against the budget by iterations. (state/slice.ts) */
import { S } from '../state/layout.ts'
import type { SemanticsBuilder, Value } from './builder.ts'

/** Instructions until the slice ends. */
export const sliceLeft = (b: SemanticsBuilder): Value => b.add(b.slot(S.budget, 'i32'), b.slot(S.reserve, 'i32'))

/** Runs `over` where the chunk `left` is used up and no further one is to be had. */
export function ifSliceIsOver(b: SemanticsBuilder, left: Value, over: () => void): void {
  b.ifUnlikely(b.ltS(left, 1), () => {
    // The function counts from 0: a block that takes no instruction is none.
    b.setSlot(S.budget, b.add(b.call('i32', 'refill', b.cpu, b.sub(left, 1)), 1))
    b.if(b.ltS(b.slot(S.budget, 'i32'), 1), over)
  })
}
