/** Bytes from a console that wait for the guest. Grows to a limit. Independent of devices. */

const SMALLEST = 4096
const LARGEST = 1 << 20 // a large paste; beyond that the sender does not look at what the guest does

export class InputQueue {
  #bytes = new Uint8Array(SMALLEST)
  #head = 0
  length = 0

  /** How many found room. */
  push(bytes: Uint8Array): number {
    const wanted = Math.min(this.length + bytes.length, LARGEST)
    if (wanted > this.#bytes.length) this.#grow(wanted)
    const taken = wanted - this.length
    const mask = this.#bytes.length - 1
    for (let index = 0; index < taken; index++) this.#bytes[(this.#head + this.length++) & mask] = bytes[index]!
    return taken
  }

  /** The oldest byte. Only when there is one. */
  shift(): number {
    const byte = this.#bytes[this.#head]!
    this.#head = (this.#head + 1) & (this.#bytes.length - 1)
    this.length--
    return byte
  }

  /** A copy of all, oldest first. */
  peek(): Uint8Array {
    const mask = this.#bytes.length - 1
    return Uint8Array.from({ length: this.length }, (_, index) => this.#bytes[(this.#head + index) & mask]!)
  }

  clear(): void {
    this.#head = this.length = 0
  }

  #grow(wanted: number): void {
    const bytes = new Uint8Array(2 ** Math.ceil(Math.log2(wanted)))
    bytes.set(this.peek())
    this.#bytes = bytes
    this.#head = 0
  }
}
