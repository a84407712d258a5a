/** Where the pool of frames keeps its state, which lies in the shared memory itself. */

import { FRAME_SIZE, NonrootError } from '@nonroot/contracts'

/**
 * Bytes from the start of the memory. Address 0 is never handed out, so a host address of 0 indicates a bug. An entry of the tables is first touched
 * when its frame is first used: unused memory costs nothing.
 *
 * ```
 * 0x00000  unused             0x04000  magazines
 * 0x01000  header             0x08000  unused
 * 0x02000  the zero frame     0x10000  owners, free list, code holders
 * ```
 */
export const POOL = { header: 0x1000, zeroFrame: 0x2000, magazines: 0x4000, tables: 0x10000 } as const

export const MAGIC = 0x4c4f4f50
export const VERSION = 2
const header = (word: number): number => (POOL.header >>> 2) + word
/** Indices of the header's words. */
export const H = {
  magic: header(0),
  version: header(1),
  total: header(2),
  first: header(3),
  lock: header(4),
  fresh: header(5),
  free: header(6),
  apart: header(7),
  limit: header(8),
} as const

/** A magazine: one word that says whether a thread owns it, then its entries. */
export const MAGAZINE_COUNT = 64
export const MAGAZINE_WORDS = 64
/** Index of a magazine's first word. */
export const magazineAt = (index: number): number => (POOL.magazines >>> 2) + index * MAGAZINE_WORDS

/** Entries of the free list and of magazines: the frame's number, and whether it was used before and so must be zeroed. No entry is 0. */
export const entryOf = (frame: number, used: boolean): number => (frame << 1) | (used ? 1 : 0)

/**
 * Owner counts. A count is the number of references; `cached` is a frame in a magazine, which the search for runs must leave alone; `reserved` is the
 * pool's own.
 *
 * ```
 *            refill               take              share
 *   0 free ─────────► cached ─────────────► 1 ◄───────────► 2, 3, ...
 *          ◄─────────        ◄─────────────     give
 *            spill                give
 * ```
 */
export const OWNERS = { cached: -1, reserved: -2 } as const

/** The tables of a memory, one entry for each frame. */
export function poolTables(buffer: ArrayBufferLike): {
  readonly owners: Int32Array
  readonly free: Int32Array
  readonly codeHolders: Uint16Array
} {
  const total = frameCount(buffer)
  return {
    owners: new Int32Array(buffer, POOL.tables, total),
    free: new Int32Array(buffer, POOL.tables + total * 4, total),
    codeHolders: new Uint16Array(buffer, POOL.tables + total * 8, total),
  }
}
const TABLE_BYTES = 4 + 4 + 2

export const frameCount = ({ byteLength }: { readonly byteLength: number }): number =>
  Math.floor(byteLength / FRAME_SIZE)
/** The first frame that can be taken: the one after the tables. */
export const firstFrame = (total: number): number =>
  (POOL.tables >>> 12) + Math.ceil((total * TABLE_BYTES) / FRAME_SIZE)

/** Throws `host.memory` if it is too small or not shared. */
export function checkMemory({ buffer }: WebAssembly.Memory): void {
  const { byteLength } = buffer
  if (!(buffer instanceof SharedArrayBuffer)) throw unusable('it is not shared', 'make it with shared: true')
  const total = frameCount({ byteLength })
  if (firstFrame(total) >= total)
    throw unusable(`it has ${byteLength} bytes, which the pool's own tables fill`, 'give it 128 KiB at least')
}

export const unusable = (why: string, remedy: string): NonrootError =>
  new NonrootError({
    code: 'host.memory',
    message: `this memory cannot serve as host memory: ${why}`,
    thing: 'host.memory',
    remedy,
  })
