/** Allocates the blocks of a new disk in ascending order, and writes them in long pieces. Zeros are not written: the disk is empty. */

import type { BlockBackend } from '@nonroot/contracts'
import type { Bytes } from '../../bytes.ts'
import { BLOCK } from './geometry.ts'
import type { Geometry } from './geometry.ts'
import type { Run } from './extents.ts'

const PIECE = 1 << 20
/** What is looked at for zeros at once. */
const GRAIN = 1 << 16

function isZero(bytes: Uint8Array<ArrayBuffer>): boolean {
  const words = new Uint32Array(bytes.buffer, bytes.byteOffset, bytes.length >> 2)
  for (let at = 0; at < words.length; at++) if (words[at] !== 0) return false
  return bytes.subarray(words.byteLength).every((byte) => byte === 0)
}

export class BlockWriter {
  readonly #disk: BlockBackend
  readonly #blocks: number
  /** One bit a block: in use. */
  readonly used: Uint8Array
  #next = 0
  readonly #buffer = new Uint8Array(PIECE)
  #start = 0
  #length = 0

  constructor(disk: BlockBackend, { blocks, groups }: Geometry) {
    this.#disk = disk
    this.#blocks = blocks
    this.used = new Uint8Array(Math.ceil(blocks / 8))
    for (const { start, data } of groups) for (let block = start; block < data; block++) this.#mark(block)
  }

  #mark(block: number): void {
    this.used[block >> 3]! |= 1 << (block & 7)
  }

  #isUsed(block: number): boolean {
    return (this.used[block >> 3]! & (1 << (block & 7))) !== 0
  }

  /** Undefined where there are not so many. */
  allocate(count: number): Run[] | undefined {
    const runs: { start: number; length: number }[] = []
    let at = this.#next
    for (let left = count; left > 0; at++) {
      if (at >= this.#blocks) return undefined
      if (this.#isUsed(at)) continue
      const last = runs.at(-1)
      if (last && last.start + last.length === at) last.length++
      else runs.push({ start: at, length: 1 })
      left--
    }
    for (const { start, length } of runs) for (let block = start; block < start + length; block++) this.#mark(block)
    this.#next = at
    return runs
  }

  /** Not allocated again: few files are replaced. */
  free(runs: readonly Run[]): void {
    for (const { start, length } of runs)
      for (let block = start; block < start + length; block++) this.used[block >> 3]! &= ~(1 << (block & 7))
  }

  /** `at` in bytes. */
  async write(at: number, bytes: Bytes): Promise<void> {
    for (let done = 0; done < bytes.length;) {
      if (this.#length > 0 && at + done !== this.#start + this.#length) await this.#flush()
      if (this.#length === 0) this.#start = at + done
      const part = bytes.subarray(done, done + PIECE - this.#length)
      this.#buffer.set(part, this.#length)
      this.#length += part.length
      done += part.length
      if (this.#length === PIECE) await this.#flush()
    }
  }

  /** The rest of the last block of what was written up to `at` is zeros. */
  async pad(at: number): Promise<void> {
    const rest = (BLOCK - (at % BLOCK)) % BLOCK
    if (rest > 0) await this.write(at, new Uint8Array(rest))
  }

  async #flush(): Promise<void> {
    const length = this.#length
    for (let from = 0; from < length;) {
      const end = (to: number): number => Math.min(length, to + GRAIN)
      const start = from
      while (from < length && !isZero(this.#buffer.subarray(from, end(from)))) from = end(from)
      if (from > start) await this.#disk.write(this.#start + start, this.#buffer.subarray(start, from))
      else from = end(from)
    }
    this.#length = 0
  }

  async finish(): Promise<void> {
    await this.#flush()
    await this.#disk.flush()
  }
}
