/** The key under which a block's region is remembered from run to run. */
import type { Block } from './block.ts'

/** Bytes that stand for a block at least: the shortest blocks are alike. */
const WINDOW = 32

/** FNV-1a over the mode, the place in the page, and the bytes there; `at`: where they are in `bytes`. */
export function keyOf(bytes: Uint8Array, at: number, { mode, length }: Pick<Block, 'mode' | 'length'>): number {
  const place = at & 0xfff
  const end = at + Math.min(Math.max(length, WINDOW), 0x1000 - place)
  let hash = Math.imul(Math.imul(0x811c_9dc5 ^ mode, 0x0100_0193) ^ place, 0x0100_0193)
  for (; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x0100_0193)
  return (hash ^ (hash >>> 15)) >>> 0
}
