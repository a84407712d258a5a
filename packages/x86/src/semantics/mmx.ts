/** MMX instructions without a counterpart on XMM registers; the others are in packed.ts. */
import { S } from '../state/layout.ts'
import type { Semantics } from './builder.ts'
import { fieldControl, low64, widen, zero } from './vector.ts'
import { setTop, startMmx, waitForX87 } from './x87-state.ts'

const emms: Semantics = (b) => {
  waitForX87(b)
  setTop(b, b.i32(0))
  b.setSlot(S.fpuTag, b.i32(0))
}

const shuffleWords: Semantics = (b, dst, src, immediate) => {
  waitForX87(b)
  const source = src!.read()
  const control = fieldControl(b, 16, immediate!.read(), [0, 1, 2, 3, undefined, undefined, undefined, undefined], [0, 0, 0, 0, 0, 0, 0, 0])
  const result = low64(b, b.op('i8x16.swizzle', widen(b, source), control))
  startMmx(b)
  dst!.write(result)
}

/** MOVNTQ. */
const store: Semantics = (b, dst, src) => {
  waitForX87(b)
  dst!.write(src!.read())
  startMmx(b)
}

const toVector: Semantics = (b, dst, src) => {
  waitForX87(b)
  const value = src!.read()
  startMmx(b)
  dst!.write(b.lane('i64x2.replace_lane', [0], zero(b), value))
}

const fromVector: Semantics = (b, dst, src) => {
  waitForX87(b)
  const value = src!.read()
  startMmx(b)
  dst!.write(value)
}

export const mmx: Record<string, Semantics> = {
  emms,
  pshufw: shuffleWords,
  movntq: store,
  movq2dq: toVector,
  movdq2q: fromVector,
}
