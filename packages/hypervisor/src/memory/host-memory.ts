/** The host's memory: one shared WebAssembly memory, handed out frame by frame. Knows no guest. @hot */

import { FRAME_SHIFT, FRAME_SIZE, formatSize, hpa, invariant, NonrootError } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'

const WASM_PAGE = 65536
/** One less than WebAssembly allows, so that the end of memory is still a 32-bit number. */
const MOST_PAGES = 65535
/** The first WebAssembly page is nobody's: a host address of 0 shows as a mistake. */
const FIRST_FRAME = WASM_PAGE / FRAME_SIZE
/** What a host needs beside its guests' memory: tables of paging strategies, and for each vCPU a cache of decoded code. */
const OVERHEAD = 56 * 2 ** 20
const VCPU_OVERHEAD = 136 * 2 ** 20

/** Bytes of host memory for one guest. */
export const defaultHostSize = (guestBytes: number, vcpus = 1): number =>
  Math.min(guestBytes + OVERHEAD + vcpus * VCPU_OVERHEAD, MOST_PAGES * WASM_PAGE)

/** Throws `host.memory` where the operating system does not give that much address space. */
export const createHostMemory = (bytes: number): HostMemory => new PooledHostMemory(bytes)

class PooledHostMemory implements HostMemory {
  readonly memory: WebAssembly.Memory
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
  readonly totalFrames: number
  readonly #owners: Int32Array
  /** Frames that were used and given back, and those that an aligned run skipped. The last is the next. */
  readonly #free: Int32Array
  #freeCount = 0
  /** Frames from here on were never handed out and are zero as the operating system gave them. */
  #fresh = FIRST_FRAME
  #watchers: readonly ((address: Hpa, length: number) => void)[] = []

  constructor(bytes: number) {
    const pages = Math.min(Math.max(Math.ceil(bytes / WASM_PAGE), 2), MOST_PAGES)
    this.memory = allocate(pages)
    this.bytes = new Uint8Array(this.memory.buffer)
    this.view = new DataView(this.memory.buffer)
    this.words = new Int32Array(this.memory.buffer)
    this.totalFrames = (pages * WASM_PAGE) >>> FRAME_SHIFT
    this.#owners = new Int32Array(this.totalFrames)
    this.#owners.fill(1, 0, FIRST_FRAME)
    this.#free = new Int32Array(this.totalFrames)
  }

  get freeFrames(): number {
    return this.#freeCount + this.totalFrames - this.#fresh
  }

  allocateFrame(): Hpa | undefined {
    if (this.#freeCount > 0) return this.#take(this.#free[--this.#freeCount]!, true)
    return this.#fresh < this.totalFrames ? this.#take(this.#fresh++, false) : undefined
  }

  allocateFrames(count: number, alignFrames = 1): Hpa | undefined {
    invariant(count > 0 && Number.isInteger(count), 'a run of frames has at least one')
    const first = Math.ceil(this.#fresh / alignFrames) * alignFrames
    if (first + count > this.totalFrames) return this.#takeFreedRun(count, alignFrames)
    while (this.#fresh < first) this.#free[this.#freeCount++] = this.#fresh++
    this.#fresh = first + count
    for (let frame = first; frame < first + count; frame++) this.#take(frame, false)
    return hpa(first * FRAME_SIZE)
  }

  #take(frame: number, used: boolean): Hpa {
    this.#owners[frame] = 1
    const start = frame * FRAME_SIZE
    if (used) this.bytes.fill(0, start, start + FRAME_SIZE)
    return hpa(start)
  }

  /** Cold: only when no fresh run is left. Counts fresh frames as free ones. */
  #takeFreedRun(count: number, alignFrames: number): Hpa | undefined {
    let run = 0
    for (let frame = FIRST_FRAME; frame < this.totalFrames; frame++) {
      if (this.#owners[frame] !== 0) run = 0
      else if (run > 0 || frame % alignFrames === 0) run++
      if (run < count) continue
      const first = frame - count + 1
      while (this.#fresh <= frame) this.#free[this.#freeCount++] = this.#fresh++
      let kept = 0
      for (let index = 0; index < this.#freeCount; index++) {
        const other = this.#free[index]!
        if (other < first || other > frame) this.#free[kept++] = other
      }
      this.#freeCount = kept
      for (let taken = first; taken <= frame; taken++) this.#take(taken, true)
      return hpa(first * FRAME_SIZE)
    }
    return undefined
  }

  shareFrame(frame: Hpa): void {
    invariant(this.#owners[frame >>> FRAME_SHIFT]! > 0, 'sharing a free frame')
    this.#owners[frame >>> FRAME_SHIFT]!++
  }

  references(frame: Hpa): number {
    return this.#owners[frame >>> FRAME_SHIFT]!
  }

  freeFrame(frame: Hpa): void {
    const index = frame >>> FRAME_SHIFT
    invariant(index >= FIRST_FRAME && this.#owners[index]! > 0, 'freeing a free frame')
    if (--this.#owners[index]! > 0) return
    this.#free[this.#freeCount++] = index
    this.noteWrite(hpa(index * FRAME_SIZE), FRAME_SIZE)
  }

  noteWrite(address: Hpa, length: number): void {
    const watchers = this.#watchers
    for (let index = 0; index < watchers.length; index++) watchers[index]!(address, length)
  }

  watchWrites(watcher: (address: Hpa, length: number) => void): () => void {
    this.#watchers = [...this.#watchers, watcher]
    return () => void (this.#watchers = this.#watchers.filter((other) => other !== watcher))
  }
}

function allocate(pages: number): WebAssembly.Memory {
  try {
    // Initial = maximum: views stay valid for ever. Pages nobody touches cost nothing.
    return new WebAssembly.Memory({ initial: pages, maximum: pages, shared: true })
  } catch (error) {
    const bytes = pages * WASM_PAGE
    throw new NonrootError({
      code: 'host.memory',
      message: `the operating system gives no ${formatSize(bytes)} for host memory: ${(error as Error).message}`,
      thing: 'host.memory',
      value: bytes,
      remedy: 'make machine.memory (or host.memory) smaller, or raise the limit of address space (ulimit -v)',
      cause: error,
    })
  }
}
