/** Which pages of a swap file are free. */

export class Slots {
  readonly #used: Uint8Array
  #next = 0
  #count = 0

  constructor(pages: number) {
    this.#used = new Uint8Array(pages)
  }

  get used(): number {
    return this.#count
  }

  /** The next free one, so that pages written one after the other lie together. -1: none is free. */
  take(): number {
    if (this.#count === this.#used.length) return -1
    let at = this.#used.indexOf(0, this.#next)
    if (at < 0) at = this.#used.indexOf(0)
    this.#used[at] = 1
    this.#count++
    this.#next = at + 1
    return at
  }

  free(slot: number): void {
    if (this.#used[slot] === 0) return
    this.#used[slot] = 0
    this.#count--
  }
}
