/** The host's memory as one thread sees it: a shared WebAssembly memory, handed out frame by frame. @hot */

import { FRAME_SHIFT, FRAME_SIZE, formatSize, hpa, invariant, NonrootError } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'
import { FramePool } from './frame-pool.ts'
import { POOL } from './pool-layout.ts'

const WASM_PAGE = 65536
/** One less than WebAssembly allows, so that the end of memory fits in 32 bits. */
const MOST_PAGES = 65535
/** Memory that a host needs beside its guests': tables of paging strategies, and a cache of decoded code for each vCPU. */
const OVERHEAD = 56 * 2 ** 20
const VCPU_OVERHEAD = 136 * 2 ** 20

/** Bytes of host memory for one guest. */
export const defaultHostSize = (guestBytes: number, vcpus = 1): number =>
  Math.min(guestBytes + OVERHEAD + vcpus * VCPU_OVERHEAD, MOST_PAGES * WASM_PAGE)

interface SizedConfig {
  readonly host: { readonly memory?: number | undefined }
  readonly machine: { readonly memory: number; readonly pluggable?: number | undefined; readonly vcpus: number }
}

/** Bytes of RAM that a machine can have, with what can be plugged. */
export const mostRam = ({ memory, pluggable = 0 }: Omit<SizedConfig['machine'], 'vcpus'>): number => memory + pluggable

/** The memory of a host with several VMs: what guests may use, and what their processors and page tables need beside. Throws `host.memory` as `createHostMemory`. */
export function hostMemoryFor(
  host: Pick<SizedConfig, 'host'>,
  vms: readonly Pick<SizedConfig, 'machine'>[],
): HostMemory {
  const sum = (of: (machine: SizedConfig['machine']) => number): number =>
    vms.reduce((total, { machine }) => total + of(machine), 0)
  const guests = host.host.memory ?? sum(mostRam)
  const vcpus = sum((machine) => machine.vcpus)
  // A processor needs frames that adjoin, and those that guests gave back do not: address space that is not used costs nothing.
  const pages = pagesOf(defaultHostSize(host.host.memory === undefined ? guests : 2 * guests, vcpus))
  const pool = FramePool.create(allocate(pages))
  // What processors and their tables need is beside it; a guest may need page tables beyond its memory only without a limit.
  if (host.host.memory !== undefined) pool.setGuestLimit(Math.floor(guests / FRAME_SIZE))
  return new PooledHostMemory(pool)
}

/** Throws `host.memory` if the operating system does not provide that much address space. */
export function createHostMemory(bytes: number): HostMemory {
  return new PooledHostMemory(FramePool.create(allocate(pagesOf(bytes))))
}

const pagesOf = (bytes: number): number => Math.min(Math.max(Math.ceil(bytes / WASM_PAGE), 2), MOST_PAGES)

/**
 * The host memory that another thread created, from its `memory`. Throws `host.memory` if it contains none. `close` it before the thread ends, so
 * that others can use the frames that it reserved.
 */
export const openHostMemory = (memory: WebAssembly.Memory): HostMemory => new PooledHostMemory(FramePool.open(memory))

/** One thread's view: all threads share the frames of the pool; watchers of writes belong to this thread. */
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
    return hpa(POOL.zeroFrame)
  }

  get freeFrames(): number {
    return this.#pool.freeFrames
  }

  get guestFrames(): number {
    return this.#pool.guestFrames
  }
  get freeGuestFrames(): number {
    return this.#pool.freeGuestFrames
  }
  get apartFrames(): number {
    return this.#pool.apartFrames
  }
  setApart(frames: number): void {
    this.#pool.addApart(frames)
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
    // Initial = maximum: views stay valid. Unused pages cost nothing.
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
