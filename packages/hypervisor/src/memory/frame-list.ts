/** The list of free frames, and the fresh ones behind it. Only with the pool's lock held. @hot */

import { entryOf, H, OWNERS } from './pool-layout.ts'

export class FrameList {
  readonly #words: Int32Array
  readonly #owners: Int32Array
  readonly #free: Int32Array
  readonly #first: number

  constructor(words: Int32Array, owners: Int32Array, free: Int32Array, first: number) {
    this.#words = words
    this.#owners = owners
    this.#free = free
    this.#first = first
  }

  /** Frames in it. May be read without the lock. */
  get size(): number {
    const words = this.#words
    return Atomics.load(words, H.free) + this.#owners.length - Atomics.load(words, H.fresh)
  }

  add(entry: number): void {
    const words = this.#words
    Atomics.store(this.#owners, entry >>> 1, 0)
    const count = words[H.free]!
    this.#free[count] = entry
    Atomics.store(words, H.free, count + 1)
  }

  /** Used frames first: they are already in physical memory. 0: it is empty. */
  take(): number {
    const words = this.#words
    const free = words[H.free]!
    let entry: number
    if (free > 0) {
      entry = this.#free[free - 1]!
      Atomics.store(words, H.free, free - 1)
    } else {
      const fresh = words[H.fresh]!
      if (fresh === this.#owners.length) return 0
      entry = entryOf(fresh, false)
      Atomics.store(words, H.fresh, fresh + 1)
    }
    Atomics.store(this.#owners, entry >>> 1, OWNERS.cached)
    return entry
  }

  /** Number of the first of `count` adjoining frames that were never used, each with one reference; or -1. */
  takeFreshRun(count: number, align: number): number {
    const fresh = this.#words[H.fresh]!
    const first = Math.ceil(fresh / align) * align
    if (first + count > this.#owners.length) return -1
    for (let skipped = fresh; skipped < first; skipped++) this.add(entryOf(skipped, false))
    Atomics.store(this.#words, H.fresh, first + count)
    for (let frame = first; frame < first + count; frame++) Atomics.store(this.#owners, frame, 1)
    return first
  }

  /** Cold: only when no fresh run is left. Fresh frames may be part of the run. */
  takeFreedRun(count: number, align: number): number {
    const words = this.#words
    const owners = this.#owners
    let run = 0
    for (let frame = this.#first; frame < owners.length; frame++) {
      if (owners[frame] !== 0) run = 0
      else if (run > 0 || frame % align === 0) run++
      if (run < count) continue
      const first = frame - count + 1
      let fresh = words[H.fresh]!
      for (; fresh <= frame; fresh++) this.add(entryOf(fresh, false))
      Atomics.store(words, H.fresh, fresh)
      const free = words[H.free]!
      let kept = 0
      for (let index = 0; index < free; index++) {
        const entry = this.#free[index]!
        if (entry >>> 1 < first || entry >>> 1 > frame) this.#free[kept++] = entry
      }
      Atomics.store(words, H.free, kept)
      for (let taken = first; taken <= frame; taken++) Atomics.store(owners, taken, 1)
      return first
    }
    return -1
  }
}
