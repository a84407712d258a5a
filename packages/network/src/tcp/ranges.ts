/** Ranges of sequence numbers, disjoint and in order: what a peer has received out of order. Bounded, against peers that make holes on purpose. @hot */

import { isAtMost, isBefore, span } from './sequence.ts'

const MOST_RANGES = 64

export class Ranges {
  count = 0
  readonly #starts = new Uint32Array(MOST_RANGES)
  readonly #ends = new Uint32Array(MOST_RANGES)

  start(index: number): number {
    return this.#starts[index]!
  }

  end(index: number): number {
    return this.#ends[index]!
  }

  /** Joined with what it touches. False, and nothing added: there are too many. */
  add(start: number, end: number): boolean {
    let first = 0
    while (first < this.count && isBefore(this.#ends[first]!, start)) first++
    let last = first
    let [from, to] = [start, end]
    for (; last < this.count && isAtMost(this.#starts[last]!, end); last++) {
      if (isBefore(this.#starts[last]!, from)) from = this.#starts[last]!
      if (isBefore(to, this.#ends[last]!)) to = this.#ends[last]!
    }
    const joined = last - first
    if (joined === 0 && this.count === MOST_RANGES) return false
    this.#shift(last, 1 - joined)
    this.#starts[first] = from
    this.#ends[first] = to
    return true
  }

  /** Forget what is before `sequence`. */
  dropBefore(sequence: number): void {
    let gone = 0
    while (gone < this.count && isAtMost(this.#ends[gone]!, sequence)) gone++
    this.#shift(gone, -gone)
    if (this.count > 0 && isBefore(this.#starts[0]!, sequence)) this.#starts[0] = sequence
  }

  /** Entries from `index` on move by `by` places. */
  #shift(index: number, by: number): void {
    if (by !== 0) {
      this.#starts.copyWithin(index + by, index, this.count)
      this.#ends.copyWithin(index + by, index, this.count)
    }
    this.count += by
  }

  /** Index of the range that holds `sequence`, or -1. */
  find(sequence: number): number {
    for (let index = 0; index < this.count; index++)
      if (isAtMost(this.#starts[index]!, sequence) && isBefore(sequence, this.#ends[index]!)) return index
    return -1
  }

  /** Bytes in all ranges. */
  get bytes(): number {
    let sum = 0
    for (let index = 0; index < this.count; index++) sum += span(this.#starts[index]!, this.#ends[index]!)
    return sum
  }

  clear(): void {
    this.count = 0
  }
}
