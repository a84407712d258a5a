/**
 * A thread's own free frames, so that it takes and gives most of them without the pool's lock. Only the thread itself adds entries, so any thread
 * takes one with a single exchange. @hot
 */

import type { FrameList } from './frame-list.ts'
import type { PoolLock } from './pool-lock.ts'
import { MAGAZINE_COUNT, MAGAZINE_WORDS, magazineAt } from './pool-layout.ts'

const CAPACITY = MAGAZINE_WORDS - 1
/** Number of frames that are moved to or from the list at once. */
const BATCH = 32

export class Magazine {
  readonly #words: Int32Array
  readonly #lock: PoolLock
  readonly #list: FrameList
  /** Word index, or -1 if all are taken: the thread then uses the list each time. */
  #at = -1
  /** Entries at and above this are empty. Those below may have been stolen. */
  #top = 0

  constructor(words: Int32Array, lock: PoolLock, list: FrameList) {
    this.#words = words
    this.#lock = lock
    this.#list = list
  }

  /** Makes one of the pool's magazines the calling thread's. */
  claim(): void {
    for (let index = 0; index < MAGAZINE_COUNT; index++) {
      const at = magazineAt(index)
      if (Atomics.compareExchange(this.#words, at, 0, 1) !== 0) continue
      this.#at = at
      this.#top = 0
      return
    }
  }

  /** Returns it, and its frames to the list. */
  close(): void {
    if (this.#at < 0) return
    this.#spill(0)
    Atomics.store(this.#words, this.#at, 0)
    this.#at = -1
  }

  /** An entry: of this magazine, of the list, of another thread's magazine. 0: no frame is free. */
  take(): number {
    return this.#pop() || this.#refill() || this.#steal()
  }

  add(entry: number): void {
    if (this.#at < 0) {
      this.#lock.acquire()
      this.#list.add(entry)
      this.#lock.release()
      return
    }
    if (this.#top === CAPACITY) this.#spill(CAPACITY - BATCH)
    Atomics.store(this.#words, this.#at + 1 + this.#top++, entry)
  }

  /** Returns all frames to the list. */
  empty(): void {
    if (this.#at >= 0) this.#spill(0)
  }

  #pop(): number {
    while (this.#top > 0) {
      const entry = Atomics.exchange(this.#words, this.#at + this.#top--, 0)
      if (entry !== 0) return entry
    }
    return 0
  }

  /**
   * One entry for the caller, and a batch for its empty magazine: the next one on top, so that frames that are taken one after the other adjoin, as
   * long as fresh ones are left. 0: the list is empty.
   */
  #refill(): number {
    this.#lock.acquire()
    const entry = this.#list.take()
    if (this.#at >= 0) {
      this.#top = Math.min(BATCH, this.#list.size)
      for (let n = this.#top; n > 0; n--) Atomics.store(this.#words, this.#at + n, this.#list.take())
    }
    this.#lock.release()
    return entry
  }

  /** Moves the upper entries, from `keep` on, to the list. */
  #spill(keep: number): void {
    this.#lock.acquire()
    while (this.#top > keep) {
      const entry = Atomics.exchange(this.#words, this.#at + this.#top--, 0)
      if (entry !== 0) this.#list.add(entry)
    }
    this.#lock.release()
  }

  /** Takes an entry of another thread's magazine: the list is empty, but a frame is free. */
  #steal(): number {
    for (let index = 0; index < MAGAZINE_COUNT; index++) {
      const magazine = magazineAt(index)
      if (magazine === this.#at || Atomics.load(this.#words, magazine) === 0) continue
      for (let at = magazine + 1; at < magazine + MAGAZINE_WORDS; at++) {
        if (Atomics.load(this.#words, at) === 0) continue
        const entry = Atomics.exchange(this.#words, at, 0)
        if (entry !== 0) return entry
      }
    }
    return 0
  }
}

/** Frames in the magazines of all threads. */
export function cachedFrames(words: Int32Array): number {
  let cached = 0
  for (let index = 0; index < MAGAZINE_COUNT; index++) {
    const magazine = magazineAt(index)
    if (Atomics.load(words, magazine) === 0) continue
    for (let at = magazine + 1; at < magazine + MAGAZINE_WORDS; at++) if (Atomics.load(words, at) !== 0) cached++
  }
  return cached
}
