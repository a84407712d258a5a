/** The host's memory as one thread sees it: a shared WebAssembly memory, handed out frame by frame. @hot */

import { FRAME_SHIFT, FRAME_SIZE, formatSize, hpa, invariant, NonrootError } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'
import { FramePool, ZERO_FRAME } from './frame-pool.ts'

const WASM_PAGE = 65536
/** One less than WebAssembly allows, so that the end of memory is still a 32-bit number. */
const MOST_PAGES = 65535
/** What a host needs beside its guests' memory: tables of paging strategies, and for each vCPU a cache of decoded code. */
const OVERHEAD = 56 * 2 ** 20
const VCPU_OVERHEAD = 136 * 2 ** 20

/** Bytes of host memory for one guest. */
export const defaultHostSize = (guestBytes: number, vcpus = 1): number =>
  Math.min(guestBytes + OVERHEAD + vcpus * VCPU_OVERHEAD, MOST_PAGES * WASM_PAGE)

/** Throws `host.memory` where the operating system does not give that much address space. */
export function createHostMemory(bytes: number): HostMemory {
  const pages = Math.min(Math.max(Math.ceil(bytes / WASM_PAGE), 2), MOST_PAGES)
  return new PooledHostMemory(FramePool.create(allocate(pages)))
}

/**
 * The host memory that another thread created, from its `memory`. Throws `host.memory` where it holds none. `close` it before the thread ends, so that
 * others get what it had put by.
 */
export const openHostMemory = (memory: WebAssembly.Memory): HostMemory => new PooledHostMemory(FramePool.open(memory))

/** One thread's view: the frames are the pool's, which all threads see; who watches writes is this thread's. */
class PooledHostMemory implements HostMemory {
  readonly memory: WebAssembly.Memory
  readonly bytes: Uint8Array
  readonly view: DataView
  readonly words: Int32Array
  readonly totalFrames: number
  readonly codeHolders: Uint16Array
  readonly #pool: FramePool
  #watchers: readonly ((address: Hpa, length: number) => void)[] = []

  constructor(pool: FramePool) {
    const { memory } = pool
    this.memory = memory
    this.bytes = new Uint8Array(memory.buffer)
    this.view = new DataView(memory.buffer)
    this.words = new Int32Array(memory.buffer)
    this.totalFrames = pool.totalFrames
    this.codeHolders = pool.codeHolders
    this.#pool = pool
  }

  get zeroFrame(): Hpa {
    return hpa(ZERO_FRAME)
  }

  get freeFrames(): number {
    return this.#pool.freeFrames
  }

  allocateFrame(): Hpa | undefined {
    const frame = this.#pool.take()
    return frame < 0 ? undefined : hpa(frame)
  }

  allocateFrames(count: number, alignFrames = 1): Hpa | undefined {
    invariant(count > 0 && Number.isInteger(count), 'a run of frames has at least one')
    const first = this.#pool.takeRun(count, alignFrames)
    return first < 0 ? undefined : hpa(first)
  }

  shareFrame(frame: Hpa): void {
    this.#pool.share(frame)
  }

  references(frame: Hpa): number {
    return this.#pool.references(frame)
  }

  freeFrame(frame: Hpa): void {
    const last = this.#pool.drop(frame)
    // Even if others still own it: this thread's watchers are not notified of what they write later.
    this.noteWrite(frame, FRAME_SIZE)
    if (last) this.#pool.recycle(frame)
  }

  noteWrite(address: Hpa, length: number): void {
    const last = (address + length - 1) >>> FRAME_SHIFT
    for (let frame = address >>> FRAME_SHIFT; frame <= last; frame++) {
      if (this.codeHolders[frame] !== 0) return this.#tell(address, length)
    }
  }

  #tell(address: Hpa, length: number): void {
    const watchers = this.#watchers
    for (let index = 0; index < watchers.length; index++) watchers[index]!(address, length)
  }

  watchWrites(watcher: (address: Hpa, length: number) => void): () => void {
    this.#watchers = [...this.#watchers, watcher]
    return () => void (this.#watchers = this.#watchers.filter((other) => other !== watcher))
  }

  close(): void {
    this.#pool.close()
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
