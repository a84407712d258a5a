/**
 * How a slice is counted. `budget` holds the chunk that code takes its instructions from, `reserve` the rest of the slice; where a chunk is used up,
 * the next one is taken from the reserve. Only then is the kick word looked at: the request of another thread waits for a chunk at most, and the hot
 * path does nothing for it. Where chunks end does not decide when the slice does: budget and reserve together are what is left of it.
 * code/refill.ts is the same for compiled code.
 */
import type { Core } from './core.ts'
import { S } from './layout.ts'

/** Instructions in a chunk: about 4 µs of compiled code, 100 µs of interpreted code. More than any block or round of a string takes at once. */
export const CHUNK = 4096

/** The reserve is a multiple of CHUNK. */
export function startSlice(core: Core, instructions: number): void {
  const chunk = ((instructions - 1) % CHUNK) + 1
  core.set32(S.budget, chunk)
  core.set32(S.reserve, instructions - chunk)
}

/** @hot Instructions left. Below 0 where the last block or string took more than there was. */
export const sliceLeft = (core: Core): number => core.get32(S.budget) + core.get32(S.reserve)

/** @hot Whether another thread has requested that the vCPU leaves guest code. */
export const isKicked = (core: Core): boolean => Atomics.load(core.i32, (core.base + S.kick) >>> 2) !== 0

/** @hot Whether no further instruction may run: the slice is used up, or the vCPU was kicked. */
export function sliceIsOver(core: Core): boolean {
  if (isKicked(core)) return true
  const budget = core.get32(S.budget)
  if (budget > 0) return false
  const reserve = core.get32(S.reserve)
  if (reserve === 0) return true
  core.set32(S.reserve, reserve - CHUNK)
  core.set32(S.budget, budget + CHUNK)
  return false
}
