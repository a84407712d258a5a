/** A bounded first-in, first-out queue of bytes. Independent of devices. */

export class ByteQueue {
  readonly #most: number
  #chunks: Uint8Array[] = []
  #length = 0

  constructor(most: number) {
    this.#most = most
  }

  get length(): number {
    return this.#length
  }

  get room(): number {
    return this.#most - this.#length
  }

  /** Copies. What does not fit is dropped, as a serial line would. Returns how much was taken. */
  add(bytes: Uint8Array): number {
    const part = bytes.slice(0, this.room)
    if (part.length > 0) this.#chunks.push(part)
    this.#length += part.length
    return part.length
  }

  /** Fill `into`, which must not be longer than what is there. */
  take(into: Uint8Array): void {
    let done = 0
    while (done < into.length) {
      const first = this.#chunks[0]!
      const piece = first.subarray(0, into.length - done)
      into.set(piece, done)
      done += piece.length
      if (piece.length === first.length) this.#chunks.shift()
      else this.#chunks[0] = first.subarray(piece.length)
    }
    this.#length -= done
  }

  /** All of it, copied. */
  peek(): Uint8Array {
    const all = new Uint8Array(this.#length)
    let at = 0
    for (const chunk of this.#chunks) {
      all.set(chunk, at)
      at += chunk.length
    }
    return all
  }

  clear(): void {
    this.#chunks = []
    this.#length = 0
  }
}
