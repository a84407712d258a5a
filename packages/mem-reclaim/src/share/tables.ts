/** What the scan remembers: pages that may have a twin, and frames that are shared. Small tables, since their size counts against what sharing gains. */

const EMPTY = 0
/** Tables are at most this full, so that searches are short. */
const FULL = 0.75

const sizeFor = (entries: number): number => 2 ** Math.max(6, 32 - Math.clz32(Math.ceil(entries / FULL)))

/** Values by hash, for one pass. The hash itself is not kept: `isMatch` looks at what the value stands for. Values are not 0. */
export class Candidates {
  #slots = new Int32Array(sizeFor(0))
  #count = 0

  /** The values whose hash may be this one are offered to `isMatch`. Returns the first that matches, or 0. */
  find(hash: number, isMatch: (value: number) => boolean): number {
    const mask = this.#slots.length - 1
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const value = this.#slots[at]!
      if (value === EMPTY || isMatch(value)) return value
    }
  }

  /** Forgotten if the table is full: the next one is larger. */
  insert(hash: number, value: number): void {
    if (this.#count >= this.#slots.length * FULL) return
    this.#count++
    const mask = this.#slots.length - 1
    let at = hash & mask
    while (this.#slots[at] !== EMPTY) at = (at + 1) & mask
    this.#slots[at] = value
  }

  /** Puts another value in place of one that `find` has found. */
  replace(hash: number, found: number, value: number): void {
    const mask = this.#slots.length - 1
    let at = hash & mask
    while (this.#slots[at] !== found) at = (at + 1) & mask
    this.#slots[at] = value
  }

  /** Forgets all, and makes room for so many. */
  clear(expected: number): void {
    const size = sizeFor(expected)
    if (size === this.#slots.length) this.#slots.fill(EMPTY)
    else this.#slots = new Int32Array(size)
    this.#count = 0
  }

  get bytes(): number {
    return this.#slots.byteLength
  }
}

/** Shared frames by hash. Grows as needed; frames can be removed. */
export class SharedFrames {
  #frames = new Int32Array(sizeFor(0))
  #hashes = new Int32Array(sizeFor(0))
  #count = 0

  get count(): number {
    return this.#count
  }
  get bytes(): number {
    return this.#frames.byteLength + this.#hashes.byteLength
  }

  /** The first frame of this hash for which `isMatch`, or 0. */
  find(hash: number, isMatch: (frame: number) => boolean): number {
    const mask = this.#frames.length - 1
    for (let at = hash & mask; ; at = (at + 1) & mask) {
      const frame = this.#frames[at]! >>> 0
      if (frame === EMPTY || (this.#hashes[at] === hash && isMatch(frame))) return frame
    }
  }

  insert(hash: number, frame: number): void {
    if (this.#count >= this.#frames.length * FULL) this.#grow()
    this.#count++
    this.#place(hash, frame)
  }

  remove(hash: number, frame: number): boolean {
    const mask = this.#frames.length - 1
    let hole = hash & mask
    while (this.#frames[hole]! >>> 0 !== frame) {
      if (this.#frames[hole] === EMPTY) return false
      hole = (hole + 1) & mask
    }
    this.#count--
    // Those that follow move up, so that no search ends at the hole.
    for (let at = (hole + 1) & mask; this.#frames[at] !== EMPTY; at = (at + 1) & mask) {
      const home = this.#hashes[at]! & mask
      if (((at - home) & mask) < ((at - hole) & mask)) continue
      this.#frames[hole] = this.#frames[at]!
      this.#hashes[hole] = this.#hashes[at]!
      hole = at
    }
    this.#frames[hole] = EMPTY
    return true
  }

  *all(): Iterable<{ readonly hash: number; readonly frame: number }> {
    for (let at = 0; at < this.#frames.length; at++)
      if (this.#frames[at] !== EMPTY) yield { hash: this.#hashes[at]!, frame: this.#frames[at]! >>> 0 }
  }

  #place(hash: number, frame: number): void {
    const mask = this.#frames.length - 1
    let at = hash & mask
    while (this.#frames[at] !== EMPTY) at = (at + 1) & mask
    this.#frames[at] = frame
    this.#hashes[at] = hash
  }

  #grow(): void {
    const old = [...this.all()]
    this.#frames = new Int32Array(this.#frames.length * 2)
    this.#hashes = new Int32Array(this.#hashes.length * 2)
    for (const { hash, frame } of old) this.#place(hash, frame)
  }
}
