/**
 * The pool of host frames: reference counts and the free list. All of its state lies in the shared memory itself, so any thread that has the memory
 * can open the pool, take frames and give them back. @hot
 *
 * Zeroing rule: a frame is zero when it is taken. The taker zeroes it, outside the lock, unless the frame was never used: the operating system
 * supplies zeroed pages. Giving a frame back writes nothing to it.
 */

import { FRAME_SIZE, NonrootError } from '@nonroot/contracts'
import { PoolLock } from './pool-lock.ts'

/**
 * Layout, in bytes from the start of the memory. Address 0 is never handed out, so a host address of 0 indicates a bug. An entry of the tables is
 * first touched when its frame is first used: unused memory costs nothing.
 *
 * ```
 * 0x00000  unused             0x04000  magazines
 * 0x01000  header             0x08000  unused
 * 0x02000  the zero frame     0x10000  owners, free list, code holders
 * ```
 */
const HEADER = 0x1000
export const ZERO_FRAME = 0x2000
const MAGAZINES = 0x4000
const TABLES = 0x10000

const MAGIC = 0x4c4f4f50
const VERSION = 2
/** Header words. */
const H = { magic: 0, version: 1, total: 2, first: 3, lock: 4, fresh: 5, free: 6, apart: 7, limit: 8 } as const

/** A magazine: one word that says whether a thread owns it, then its entries. */
const MAGAZINE_COUNT = 64
const MAGAZINE_WORDS = 64
const CAPACITY = MAGAZINE_WORDS - 1
/** Number of frames that are moved to or from the free list at once. */
const BATCH = 32

/**
 * Owner counts. A count is the number of references; `CACHED` is a frame in a magazine, which the search for runs must leave alone; `RESERVED`
 * is the pool's own.
 *
 * ```
 *            refill               take              share
 *   0 free ─────────► CACHED ─────────────► 1 ◄───────────► 2, 3, ...
 *          ◄─────────        ◄─────────────     give
 *            spill                give
 * ```
 */
const CACHED = -1
const RESERVED = -2

/** Entries of the free list and of magazines: the frame's number, and whether it was used before and so must be zeroed. */
const entryOf = (frame: number, used: boolean): number => (frame << 1) | (used ? 1 : 0)

export class FramePool {
  readonly memory: WebAssembly.Memory
  readonly totalFrames: number
  /** The first frame that can be taken. */
  readonly firstFrame: number
  /** For each frame, how many processors hold code decoded from it. */
  readonly codeHolders: Uint16Array
  readonly #words: Int32Array
  readonly #bytes: Uint8Array
  readonly #owners: Int32Array
  readonly #free: Int32Array
  readonly #header: number
  readonly #lock: PoolLock
  /** Word index of this thread's magazine, or -1 if all are taken: the thread then uses the free list each time. */
  #magazine = -1
  /** Entries of the magazine at and above this are empty. Those below may have been stolen. */
  #top = 0

  private constructor(memory: WebAssembly.Memory) {
    this.memory = memory
    const { buffer } = memory
    this.#words = new Int32Array(buffer)
    this.#bytes = new Uint8Array(buffer)
    this.#header = HEADER >>> 2
    this.totalFrames = Math.floor(buffer.byteLength / FRAME_SIZE)
    this.firstFrame = firstFrame(this.totalFrames)
    this.#owners = new Int32Array(buffer, TABLES, this.totalFrames)
    this.#free = new Int32Array(buffer, TABLES + this.totalFrames * 4, this.totalFrames)
    this.codeHolders = new Uint16Array(buffer, TABLES + this.totalFrames * 8, this.totalFrames)
    this.#lock = new PoolLock(this.#words, this.#header + H.lock)
  }

  /** Creates a pool of all frames of an unused memory. Throws `host.memory` if it is too small or not shared. */
  static create(memory: WebAssembly.Memory): FramePool {
    checkMemory(memory)
    const pool = new FramePool(memory)
    const words = pool.#words
    const header = pool.#header
    if (words[header + H.magic] === MAGIC) throw unusable('it has a pool already', 'open it with FramePool.open')
    words[header + H.version] = VERSION
    words[header + H.total] = pool.totalFrames
    words[header + H.first] = pool.firstFrame
    words[header + H.fresh] = pool.firstFrame
    words[header + H.free] = 0
    pool.#owners.fill(RESERVED, 0, pool.firstFrame)
    Atomics.store(words, header + H.magic, MAGIC)
    pool.#takeMagazine()
    return pool
  }

  /** Opens the pool that another thread created in this memory. Throws `host.memory` if there is none of this version. */
  static open(memory: WebAssembly.Memory): FramePool {
    checkMemory(memory)
    const pool = new FramePool(memory)
    const words = pool.#words
    const header = pool.#header
    if (Atomics.load(words, header + H.magic) !== MAGIC)
      throw unusable('it has no pool of frames', 'make one with FramePool.create')
    if (words[header + H.version] !== VERSION || words[header + H.total] !== pool.totalFrames)
      throw unusable(
        `its pool has version ${words[header + H.version]} and ${words[header + H.total]} frames, this code knows version ${VERSION} of ${pool.totalFrames}`,
        'use one version of @nonroot/hypervisor in all threads',
      )
    pool.#takeMagazine()
    return pool
  }

  /** Returns the magazine and its frames. The thread may continue to use the pool; it then takes the lock each time. */
  close(): void {
    if (this.#magazine < 0) return
    this.#spill(0)
    Atomics.store(this.#words, this.#magazine, 0)
    this.#magazine = -1
  }

  /** Frames that can be taken now. Exact while no other thread takes or gives. */
  get freeFrames(): number {
    let cached = 0
    for (let index = 0; index < MAGAZINE_COUNT; index++) {
      const magazine = magazineAt(index)
      if (Atomics.load(this.#words, magazine) === 0) continue
      for (let at = magazine + 1; at < magazine + MAGAZINE_WORDS; at++)
        if (Atomics.load(this.#words, at) !== 0) cached++
    }
    return this.listedFrames + cached
  }

  /** Frames of processors, which do not count as guests'. */
  get apartFrames(): number {
    return Atomics.load(this.#words, this.#header + H.apart)
  }
  addApart(frames: number): void {
    Atomics.add(this.#words, this.#header + H.apart, frames)
  }

  /** Most frames that guests may use together. 0: all that are not set apart. */
  setGuestLimit(frames: number): void {
    Atomics.store(this.#words, this.#header + H.limit, frames)
  }
  get guestFrames(): number {
    const limit = Atomics.load(this.#words, this.#header + H.limit)
    return limit > 0 ? limit : this.totalFrames - this.firstFrame - this.apartFrames
  }
  get freeGuestFrames(): number {
    const free = this.freeFrames
    const used = this.totalFrames - this.firstFrame - this.apartFrames - free
    return Math.min(free, this.guestFrames - used)
  }

  /** The free frames that are in no magazine: `freeFrames` to within 63 per thread, for the cost of two loads. */
  get listedFrames(): number {
    return (
      Atomics.load(this.#words, this.#header + H.free) +
      this.totalFrames -
      Atomics.load(this.#words, this.#header + H.fresh)
    )
  }

  /** Host address of a zeroed frame with one reference, or -1: none is free. */
  take(): number {
    let entry = this.#pop()
    if (entry === 0) entry = this.#refill()
    if (entry === 0) entry = this.#steal()
    if (entry === 0) return -1
    const frame = entry >>> 1
    Atomics.store(this.#owners, frame, 1)
    const start = frame * FRAME_SIZE
    if ((entry & 1) !== 0) this.#bytes.fill(0, start, start + FRAME_SIZE)
    return start
  }

  /** `count` adjoining zeroed frames at a multiple of `align` frames, each with one reference; or -1. */
  takeRun(count: number, align: number): number {
    if (count > this.totalFrames) return -1
    this.#lock.acquire()
    let first = this.#takeFreshRun(count, align)
    this.#lock.release()
    if (first >= 0) return first * FRAME_SIZE
    if (this.#magazine >= 0) this.#spill(0)
    this.#lock.acquire()
    first = this.#takeFreedRun(count, align)
    this.#lock.release()
    if (first < 0) return -1
    this.#bytes.fill(0, first * FRAME_SIZE, (first + count) * FRAME_SIZE)
    return first * FRAME_SIZE
  }

  /** References to the frame at this host address: 0 free. */
  references(address: number): number {
    return Math.max(0, Atomics.load(this.#owners, address >>> 12))
  }

  /** Adds a reference. Throws `internal` if the frame has no owner. */
  share(address: number): void {
    const frame = this.#numberOf(address)
    for (;;) {
      const count = Atomics.load(this.#owners, frame)
      if (count <= 0) throw this.#misuse('shared', address, count)
      if (Atomics.compareExchange(this.#owners, frame, count, count + 1) === count) return
    }
  }

  /**
   * Removes a reference. True: it was the last one, and the caller must `recycle` the frame once nothing refers to it any more. Throws `internal` if
   * the frame has no owner: if two threads give back the same reference, one of them gets the error.
   */
  drop(address: number): boolean {
    const frame = this.#numberOf(address)
    for (;;) {
      const count = Atomics.load(this.#owners, frame)
      if (count <= 0) throw this.#misuse('given back', address, count)
      const next = count === 1 ? CACHED : count - 1
      if (Atomics.compareExchange(this.#owners, frame, count, next) === count) return count === 1
    }
  }

  /** Makes a frame free whose last reference `drop` removed. */
  recycle(address: number): void {
    const entry = entryOf(address >>> 12, true)
    if (this.#magazine < 0) {
      this.#lock.acquire()
      this.#list(entry)
      this.#lock.release()
      return
    }
    if (this.#top === CAPACITY) this.#spill(CAPACITY - BATCH)
    Atomics.store(this.#words, this.#magazine + 1 + this.#top++, entry)
  }

  // The magazine: only its own thread adds entries, so any thread takes one with a single exchange.

  #takeMagazine(): void {
    for (let index = 0; index < MAGAZINE_COUNT; index++) {
      const magazine = magazineAt(index)
      if (Atomics.compareExchange(this.#words, magazine, 0, 1) !== 0) continue
      this.#magazine = magazine
      this.#top = 0
      return
    }
  }

  #pop(): number {
    while (this.#top > 0) {
      const entry = Atomics.exchange(this.#words, this.#magazine + this.#top--, 0)
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
    const entry = this.#unlist()
    if (this.#magazine >= 0) {
      this.#top = Math.min(BATCH, this.listedFrames)
      for (let at = this.#top; at > 0; at--) Atomics.store(this.#words, this.#magazine + at, this.#unlist())
    }
    this.#lock.release()
    return entry
  }

  /** Moves the upper entries of the magazine, from `keep` on, to the list. */
  #spill(keep: number): void {
    this.#lock.acquire()
    while (this.#top > keep) {
      const entry = Atomics.exchange(this.#words, this.#magazine + this.#top--, 0)
      if (entry !== 0) this.#list(entry)
    }
    this.#lock.release()
  }

  /** Takes an entry of another thread's magazine: the list is empty, but a frame is free. */
  #steal(): number {
    for (let index = 0; index < MAGAZINE_COUNT; index++) {
      const magazine = magazineAt(index)
      if (magazine === this.#magazine || Atomics.load(this.#words, magazine) === 0) continue
      for (let at = magazine + 1; at < magazine + MAGAZINE_WORDS; at++) {
        if (Atomics.load(this.#words, at) === 0) continue
        const entry = Atomics.exchange(this.#words, at, 0)
        if (entry !== 0) return entry
      }
    }
    return 0
  }

  // The list. Only with the lock held.

  #list(entry: number): void {
    Atomics.store(this.#owners, entry >>> 1, 0)
    const at = this.#header + H.free
    this.#free[this.#words[at]!] = entry
    Atomics.store(this.#words, at, this.#words[at]! + 1)
  }

  /** Used frames first: they are already in physical memory. */
  #unlist(): number {
    const words = this.#words
    const free = words[this.#header + H.free]!
    let entry: number
    if (free > 0) {
      entry = this.#free[free - 1]!
      Atomics.store(words, this.#header + H.free, free - 1)
    } else {
      const fresh = words[this.#header + H.fresh]!
      if (fresh === this.totalFrames) return 0
      entry = entryOf(fresh, false)
      Atomics.store(words, this.#header + H.fresh, fresh + 1)
    }
    Atomics.store(this.#owners, entry >>> 1, CACHED)
    return entry
  }

  #takeFreshRun(count: number, align: number): number {
    const fresh = this.#words[this.#header + H.fresh]!
    const first = Math.ceil(fresh / align) * align
    if (first + count > this.totalFrames) return -1
    for (let skipped = fresh; skipped < first; skipped++) this.#list(entryOf(skipped, false))
    Atomics.store(this.#words, this.#header + H.fresh, first + count)
    for (let frame = first; frame < first + count; frame++) Atomics.store(this.#owners, frame, 1)
    return first
  }

  /** Cold: only when no fresh run is left. Fresh frames may be part of the run. */
  #takeFreedRun(count: number, align: number): number {
    const words = this.#words
    const owners = this.#owners
    let run = 0
    for (let frame = this.firstFrame; frame < this.totalFrames; frame++) {
      if (owners[frame] !== 0) run = 0
      else if (run > 0 || frame % align === 0) run++
      if (run < count) continue
      const first = frame - count + 1
      let fresh = words[this.#header + H.fresh]!
      for (; fresh <= frame; fresh++) this.#list(entryOf(fresh, false))
      Atomics.store(words, this.#header + H.fresh, fresh)
      const free = words[this.#header + H.free]!
      let kept = 0
      for (let index = 0; index < free; index++) {
        const entry = this.#free[index]!
        if (entry >>> 1 < first || entry >>> 1 > frame) this.#free[kept++] = entry
      }
      Atomics.store(words, this.#header + H.free, kept)
      for (let taken = first; taken <= frame; taken++) Atomics.store(owners, taken, 1)
      return first
    }
    return -1
  }

  /** Throws `internal` if the address is not that of a frame of the pool. */
  #numberOf(address: number): number {
    const frame = address / FRAME_SIZE
    if (Number.isInteger(frame) && frame >= 0 && frame < this.totalFrames) return frame
    throw new NonrootError({
      code: 'internal',
      message: `host address ${address} is no frame of the pool's ${this.totalFrames}`,
      thing: 'frame',
      value: address,
      remedy: 'report this: a part of the hypervisor gave back or shared what it was never given',
    })
  }

  #misuse(what: string, address: number, count: number): NonrootError {
    return new NonrootError({
      code: 'internal',
      message: `frame 0x${address.toString(16)} is ${what}, but ${count === RESERVED ? "it is the pool's own" : 'it has no owner'}`,
      thing: 'frame',
      value: address,
      remedy: 'report this: a part of the hypervisor gave a frame back twice',
    })
  }
}

const magazineAt = (index: number): number => (MAGAZINES >>> 2) + index * MAGAZINE_WORDS
const TABLE_BYTES = 4 + 4 + 2
const firstFrame = (total: number): number => (TABLES >>> 12) + Math.ceil((total * TABLE_BYTES) / FRAME_SIZE)

function checkMemory({ buffer }: WebAssembly.Memory): void {
  const { byteLength } = buffer
  if (!(buffer instanceof SharedArrayBuffer)) throw unusable('it is not shared', 'make it with shared: true')
  const total = Math.floor(byteLength / FRAME_SIZE)
  if (firstFrame(total) >= total)
    throw unusable(`it has ${byteLength} bytes, which the pool's own tables fill`, 'give it 128 KiB at least')
}

const unusable = (why: string, remedy: string): NonrootError =>
  new NonrootError({
    code: 'host.memory',
    message: `this memory cannot serve as host memory: ${why}`,
    thing: 'host.memory',
    remedy,
  })
