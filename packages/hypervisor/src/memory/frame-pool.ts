/**
 * The pool of host frames: reference counts and the free list. All of its state lies in the shared memory itself, so any thread that has the memory
 * can open the pool, take frames and give them back. @hot
 *
 * Zeroing rule: a frame is zero when it is taken. The taker zeroes it, outside the lock, unless the frame was never used: the operating system
 * supplies zeroed pages. Giving a frame back writes nothing to it.
 */

import { FRAME_SIZE, NonrootError } from '@nonroot/contracts'
import { FrameList } from './frame-list.ts'
import { cachedFrames, Magazine } from './magazine.ts'
import { PoolLock } from './pool-lock.ts'
import {
  checkMemory,
  entryOf,
  firstFrame,
  frameCount,
  H,
  MAGIC,
  OWNERS,
  poolTables,
  unusable,
  VERSION,
} from './pool-layout.ts'

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
  readonly #lock: PoolLock
  readonly #list: FrameList
  readonly #magazine: Magazine

  private constructor(memory: WebAssembly.Memory) {
    this.memory = memory
    const { buffer } = memory
    const words = (this.#words = new Int32Array(buffer))
    this.#bytes = new Uint8Array(buffer)
    this.totalFrames = frameCount(buffer)
    this.firstFrame = firstFrame(this.totalFrames)
    const { owners, free, codeHolders } = poolTables(buffer)
    this.#owners = owners
    this.codeHolders = codeHolders
    this.#lock = new PoolLock(words, H.lock)
    this.#list = new FrameList(words, owners, free, this.firstFrame)
    this.#magazine = new Magazine(words, this.#lock, this.#list)
  }

  /** Creates a pool of all frames of an unused memory. Throws `host.memory` if it is too small or not shared. */
  static create(memory: WebAssembly.Memory): FramePool {
    checkMemory(memory)
    const pool = new FramePool(memory)
    const words = pool.#words
    if (words[H.magic] === MAGIC) throw unusable('it has a pool already', 'open it with FramePool.open')
    words[H.version] = VERSION
    words[H.total] = pool.totalFrames
    words[H.first] = pool.firstFrame
    words[H.fresh] = pool.firstFrame
    words[H.free] = 0
    pool.#owners.fill(OWNERS.reserved, 0, pool.firstFrame)
    Atomics.store(words, H.magic, MAGIC)
    pool.#magazine.claim()
    return pool
  }

  /** Opens the pool that another thread created in this memory. Throws `host.memory` if there is none of this version. */
  static open(memory: WebAssembly.Memory): FramePool {
    checkMemory(memory)
    const pool = new FramePool(memory)
    const words = pool.#words
    if (Atomics.load(words, H.magic) !== MAGIC)
      throw unusable('it has no pool of frames', 'make one with FramePool.create')
    if (words[H.version] !== VERSION || words[H.total] !== pool.totalFrames)
      throw unusable(
        `its pool has version ${words[H.version]} and ${words[H.total]} frames, this code knows version ${VERSION} of ${pool.totalFrames}`,
        'use one version of @nonroot/hypervisor in all threads',
      )
    pool.#magazine.claim()
    return pool
  }

  /** Returns the magazine and its frames. The thread may continue to use the pool; it then takes the lock each time. */
  close(): void {
    this.#magazine.close()
  }

  /** Frames that can be taken now. Exact while no other thread takes or gives. */
  get freeFrames(): number {
    return this.listedFrames + cachedFrames(this.#words)
  }

  /** Frames of processors, which do not count as guests'. */
  get apartFrames(): number {
    return Atomics.load(this.#words, H.apart)
  }
  addApart(frames: number): void {
    Atomics.add(this.#words, H.apart, frames)
  }

  /** Most frames that guests may use together. 0: all that are not set apart. */
  setGuestLimit(frames: number): void {
    Atomics.store(this.#words, H.limit, frames)
  }
  get guestFrames(): number {
    const limit = Atomics.load(this.#words, H.limit)
    return limit > 0 ? limit : this.totalFrames - this.firstFrame - this.apartFrames
  }
  get freeGuestFrames(): number {
    const free = this.freeFrames
    const used = this.totalFrames - this.firstFrame - this.apartFrames - free
    return Math.min(free, this.guestFrames - used)
  }

  /** The free frames that are in no magazine: `freeFrames` to within 63 per thread, for the cost of two loads. */
  get listedFrames(): number {
    return this.#list.size
  }

  /** Host address of a zeroed frame with one reference, or -1: none is free. */
  take(): number {
    const entry = this.#magazine.take()
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
    let first = this.#list.takeFreshRun(count, align)
    this.#lock.release()
    if (first >= 0) return first * FRAME_SIZE
    this.#magazine.empty()
    this.#lock.acquire()
    first = this.#list.takeFreedRun(count, align)
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
      const next = count === 1 ? OWNERS.cached : count - 1
      if (Atomics.compareExchange(this.#owners, frame, count, next) === count) return count === 1
    }
  }

  /** Makes a frame free whose last reference `drop` removed. */
  recycle(address: number): void {
    this.#magazine.add(entryOf(address >>> 12, true))
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
      message: `frame 0x${address.toString(16)} is ${what}, but ${count === OWNERS.reserved ? "it is the pool's own" : 'it has no owner'}`,
      thing: 'frame',
      value: address,
      remedy: 'report this: a part of the hypervisor gave a frame back twice',
    })
  }
}
