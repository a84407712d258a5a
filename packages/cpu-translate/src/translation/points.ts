/** Which guest instruction each instruction of the cache stands for: what makes exceptions precise. @hot */

/** What the monitor does when translated code stops here. Everywhere the guest's state is that before the instruction at the point's RIP. */
export const POINT = {
  /** A copy: an exception is the guest's, or that of an instruction that it may not execute itself. */
  copy: 0,
  callOut: 1,
  /** The end of a block: the RIP is that of its successor, which is looked up once. */
  exit: 2,
  return: 3,
  indirect: 4,
  cli: 5,
  sti: 6,
  pushFlags: 7,
  popFlags: 8,
  stac: 9,
  clac: 10,
  swapGs: 11,
  sysret: 12,
  iret: 13,
  /** An entry of a dropped block, too short for a jump: it is looked up each time. */
  moved: 14,
  /** A far transfer: it may leave the kernel. */
  far: 15,
  fromSegment: 16,
  fromControl: 17,
} as const

export class Points {
  /** By offset in the cache: the number of its point, plus 1. */
  readonly #at: Int32Array
  #low = new Int32Array(1 << 14)
  #high = new Int32Array(1 << 14)
  #kind = new Uint8Array(1 << 14)
  #length = new Uint8Array(1 << 14)
  #extra = new Int32Array(1 << 14)
  count = 0

  constructor(bytes: number) {
    this.#at = new Int32Array(bytes)
  }

  /** `length`: of the guest's instruction; `extra`: what the kind needs to know. */
  add(offset: number, kind: number, low: number, high: number, length = 0, extra = 0): void {
    const n = this.count++
    if (n === this.#low.length) this.#grow()
    this.#low[n] = low
    this.#high[n] = high
    this.#kind[n] = kind
    this.#length[n] = length
    this.#extra[n] = extra
    this.#at[offset] = n + 1
  }
  change(offset: number, kind: number, low: number, high: number): void {
    const n = this.find(offset)
    this.#low[n] = low
    this.#high[n] = high
    this.#kind[n] = kind
  }
  /**
   * What was known of the guest's instructions in [from, to) is so no longer: each is left to the virtual CPU. Exits are to where they were, except
   * that of a jump (with a length), which is an instruction itself: to its own address (`extra`).
   */
  forget(from: number, to: number): void {
    for (let offset = from; offset < to; offset++) {
      const n = this.find(offset)
      if (n < 0) continue
      if (this.#kind[n] !== POINT.exit) this.#kind[n] = POINT.copy
      else if (this.#length[n]) {
        this.#low[n] = this.#extra[n]!
        this.#length[n] = 0
      }
    }
  }
  /** -1: no instruction begins there. */
  find(offset: number): number {
    return (this.#at[offset] ?? 0) - 1
  }
  kind(point: number): number {
    return this.#kind[point]!
  }
  low(point: number): number {
    return this.#low[point]!
  }
  high(point: number): number {
    return this.#high[point]!
  }
  length(point: number): number {
    return this.#length[point]!
  }
  extra(point: number): number {
    return this.#extra[point]!
  }
  clear(used: number): void {
    this.#at.fill(0, 0, used)
    this.count = 0
  }

  #grow(): void {
    const grow = <T extends Int32Array | Uint8Array>(old: T, fresh: T): T => (fresh.set(old), fresh)
    const size = this.count * 2
    this.#low = grow(this.#low, new Int32Array(size))
    this.#high = grow(this.#high, new Int32Array(size))
    this.#kind = grow(this.#kind, new Uint8Array(size))
    this.#length = grow(this.#length, new Uint8Array(size))
    this.#extra = grow(this.#extra, new Int32Array(size))
  }
}
