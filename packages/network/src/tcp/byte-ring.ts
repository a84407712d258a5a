/** Bytes that are not acknowledged yet, in a ring that grows as needed and is freed when empty. @hot */

const FIRST_SIZE = 16 * 1024
const NOTHING = new Uint8Array(0)

export class ByteRing {
  length = 0
  #bytes = NOTHING
  #start = 0

  append(bytes: Uint8Array): void {
    if (this.length + bytes.length > this.#bytes.length) this.#grow(this.length + bytes.length)
    const size = this.#bytes.length
    const at = (this.#start + this.length) & (size - 1)
    const first = Math.min(bytes.length, size - at)
    this.#bytes.set(first === bytes.length ? bytes : bytes.subarray(0, first), at)
    if (first < bytes.length) this.#bytes.set(bytes.subarray(first), 0)
    this.length += bytes.length
  }

  #grow(least: number): void {
    let size = Math.max(this.#bytes.length, FIRST_SIZE)
    while (size < least) size *= 2
    const bytes = new Uint8Array(size)
    this.copy(0, this.length, bytes, 0)
    this.#bytes = bytes
    this.#start = 0
  }

  /** Copy `length` bytes from `offset`, all of which must be there. */
  copy(offset: number, length: number, into: Uint8Array, at: number): void {
    if (length === 0) return
    const size = this.#bytes.length
    const from = (this.#start + offset) & (size - 1)
    const first = Math.min(length, size - from)
    into.set(this.#bytes.subarray(from, from + first), at)
    if (first < length) into.set(this.#bytes.subarray(0, length - first), at + first)
  }

  /** The first `count` are done with. */
  drop(count: number): void {
    this.length -= count
    if (this.length === 0) this.#start = 0
    else this.#start = (this.#start + count) & (this.#bytes.length - 1)
  }

  /** Give the memory back. */
  clear(): void {
    this.length = 0
    this.#start = 0
    this.#bytes = NOTHING
  }

  /** Give the memory back if nothing is in it. */
  settle(): void {
    if (this.length === 0) this.#bytes = NOTHING
  }
}
