/** Where kernel code has been translated to: offsets in the cache by guest address. In the monitor's memory, not the guest's. @hot */

const FREE = -1
const DELETED = -2
const FIRST_SIZE = 1 << 14

export class Lookup {
  #low = new Int32Array(FIRST_SIZE)
  #high = new Int32Array(FIRST_SIZE)
  #offset = new Int32Array(FIRST_SIZE).fill(FREE)
  /** Places that are not free. */
  #used = 0
  /** Those with an entry. */
  #live = 0

  /** Places, free ones included. */
  get size(): number {
    return this.#offset.length
  }
  /** -1: not translated. */
  find(low: number, high: number): number {
    const at = this.#place(low, high)
    return at < 0 ? -1 : this.#offset[at]!
  }
  set(low: number, high: number, offset: number): void {
    const known = this.#place(low, high)
    if (known >= 0) {
      this.#offset[known] = offset
      return
    }
    if (this.#used * 2 >= this.#offset.length) this.#rebuild()
    this.#put(low, high, offset)
  }
  delete(low: number, high: number): void {
    const at = this.#place(low, high)
    if (at < 0) return
    this.#offset[at] = DELETED
    this.#live--
  }
  clear(): void {
    this.#offset.fill(FREE)
    this.#used = this.#live = 0
  }

  #first(low: number, high: number): number {
    return (Math.imul(low ^ Math.imul(high, 0x85eb_ca6b), 0x9e37_79b1) >>> 8) & (this.#offset.length - 1)
  }
  #place(low: number, high: number): number {
    const mask = this.#offset.length - 1
    for (let at = this.#first(low, high); ; at = (at + 1) & mask) {
      const offset = this.#offset[at]!
      if (offset === FREE) return -1
      if (offset >= 0 && this.#low[at] === low && this.#high[at] === high) return at
    }
  }
  #put(low: number, high: number, offset: number): void {
    let at = this.#first(low, high)
    while (this.#offset[at] !== FREE) at = (at + 1) & (this.#offset.length - 1)
    this.#low[at] = low
    this.#high[at] = high
    this.#offset[at] = offset
    this.#used++
    this.#live++
  }
  /** Without what was deleted; twice as large if that is not half of it. */
  #rebuild(): void {
    const [low, high, offsets] = [this.#low, this.#high, this.#offset]
    const size = this.#live * 4 > offsets.length ? offsets.length * 2 : offsets.length
    this.#low = new Int32Array(size)
    this.#high = new Int32Array(size)
    this.#offset = new Int32Array(size).fill(FREE)
    this.#used = this.#live = 0
    offsets.forEach((offset, at) => {
      if (offset >= 0) this.#put(low[at]!, high[at]!, offset)
    })
  }
}
