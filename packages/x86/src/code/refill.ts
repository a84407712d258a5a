/** The next chunk of a slice (state/slice.ts), for wasm code that has used up its own. */
import type { Built, Signature } from '../ir/function.ts'
import { IrBuilder } from '../ir/builder.ts'
import type { Value, Variable } from '../ir/nodes.ts'
import { S } from '../state/layout.ts'
import { CHUNK } from '../state/slice.ts'

/** (cpu, what is left of the chunk, below 0) gives what is left with the next one; still below 0: the slice is over. */
export const REFILL_TYPE: Signature = { params: ['i32', 'i32'], results: ['i32'], isRare: true }

export function refillBody(): Built {
  const b = new IrBuilder()
  const left = b.variable(b.param(1), 'left')
  refill(b, b.param(0), left, () => b.return(b.get(left)))
  b.return(b.get(left))
  return { root: b.root, callees: b.callees, signature: REFILL_TYPE }
}

/** Adds the next chunk to `left`, or runs `over`, which goes elsewhere. In loops of compiled code it stands in place of the call, which would cost registers. */
export function refill(b: IrBuilder, cpu: Value, left: Variable, over: () => void): void {
  const load = (offset: number, atomic = false): Value => b.rawLoad('i32', cpu, offset, 32, { atomic })
  const reserve = load(S.reserve)
  // The kick word is 0, or more than any reserve.
  b.ifUnlikely(b.leS(reserve, load(S.kick, true)), over)
  b.rawStore(cpu, S.reserve, 32, b.sub(reserve, CHUNK))
  // What the slot says is behind `left`. Its sum with the reserve must stay what it was: instructions are counted by it.
  b.rawStore(cpu, S.budget, 32, b.add(load(S.budget), CHUNK))
  b.assign(left, b.add(b.get(left), CHUNK))
}
