/** A stream of bytes read by length. Independent of the format. */

import { type Bytes, concatBytes } from './bytes.ts'

export type Chunks = AsyncIterable<Bytes> | Iterable<Bytes>

/** Reads exact lengths from chunks of any length, holding no more than it was asked for. */
export class ChunkReader {
  private readonly iterator: AsyncIterator<Bytes> | Iterator<Bytes>
  private pending: Bytes = new Uint8Array(0)

  constructor(chunks: Chunks) {
    this.iterator = Symbol.asyncIterator in chunks ? chunks[Symbol.asyncIterator]() : chunks[Symbol.iterator]()
  }

  /** Fewer bytes than asked for mean the end of the stream. */
  async read(length: number): Promise<Bytes> {
    const parts: Bytes[] = []
    for (let missing = length; missing > 0;) {
      if (this.pending.length === 0 && !(await this.refill())) break
      const part = this.pending.subarray(0, missing)
      parts.push(part)
      this.pending = this.pending.subarray(part.length)
      missing -= part.length
    }
    return parts.length === 1 ? parts[0]! : concatBytes(parts)
  }

  async skip(length: number): Promise<boolean> {
    while (length > 0) {
      if (this.pending.length === 0 && !(await this.refill())) return false
      const step = Math.min(length, this.pending.length)
      this.pending = this.pending.subarray(step)
      length -= step
    }
    return true
  }

  async close(): Promise<void> {
    await this.iterator.return?.()
  }

  private async refill(): Promise<boolean> {
    const next = await this.iterator.next()
    if (next.done === true) return false
    this.pending = next.value
    return true
  }

  /** Some bytes, at most `most`; undefined at the end of the stream. */
  async readSome(most: number): Promise<Bytes | undefined> {
    if (this.pending.length === 0 && !(await this.refill())) return undefined
    const part = this.pending.subarray(0, most)
    this.pending = this.pending.subarray(part.length)
    return part
  }
}
