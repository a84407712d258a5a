/** The host's memory: one pool of frames for all VMs. Independent of guests. */

import type { Hpa } from '../base/address.ts'
import { token } from '../base/token.ts'

declare global {
  namespace WebAssembly {
    /** For programs that are compiled without the DOM's types: elsewhere it merges with the one there is. */
    interface Memory {}
  }
}

/**
 * ONE shared WebAssembly.Memory. A host-physical address is a byte offset into it, so compiled guest code, page walkers and
 * devices use the same numbers. The kernel owns it; strategies take frames for their tables, `GuestFrames` takes them for
 * the guest on demand. Not growing: `bytes` and `view` stay valid for the life of the host.
 *
 * This is one thread's view. Which frames are free and how many own one is kept in the memory itself, so that threads take from one pool.
 */
export interface HostMemory {
  readonly memory: WebAssembly.Memory
  /** All of host memory. Offset = HPA. */
  readonly bytes: Uint8Array
  /** All of host memory, for little-endian access of any alignment. */
  readonly view: DataView
  /** All of host memory as 32-bit words, for page tables: index = HPA >>> 2. */
  readonly words: Int32Array

  readonly totalFrames: number
  readonly freeFrames: number
  /**
   * Of `totalFrames`, those that guests and their page tables may use, and how many of these are free: negative where accesses that cannot wait
   * took more. Frames set apart do not count.
   */
  readonly guestFrames: number
  readonly freeGuestFrames: number
  /** Frames set apart. */
  readonly apartFrames: number
  /** A frame that is always zero and never handed out: reads of memory that was never written may go there. It must not be written. */
  readonly zeroFrame: Hpa
  /**
   * For each frame, how many processors hold code decoded from it. A processor adds itself (by `Atomics`) before it uses what it decoded, and removes
   * itself when it has dropped all of it. Writes to frames without holders cost only this check.
   */
  readonly codeHolders: Uint16Array

  /** A zeroed frame with one reference, or undefined when none is free (then the caller asks for reclaim, or fails the VM). */
  allocateFrame(): Hpa | undefined
  /**
   * `count` adjoining zeroed frames at a multiple of `alignFrames` frames (a power of two, default 1), or undefined. Each
   * has one reference and is freed by itself.
   */
  allocateFrames(count: number, alignFrames?: number): Hpa | undefined
  /** So many of the caller's frames are no guest's (negative: are free or a guest's again): a processor's decoded and compiled code. */
  setApart(frames: number): void
  /** Adds an owner of the frame (copy-on-write sharing). Throws `internal` if it has none. */
  shareFrame(frame: Hpa): void
  /** Owners of the frame: 0 free, 1 private, more: shared, must be copied before it is written. */
  references(frame: Hpa): number
  /**
   * Removes an owner; without owners the frame is free again. Either way this thread's watchers are notified of a write to all of it, because they
   * are not notified of what other owners do with it later. Throws `internal` if the frame has no owner.
   */
  freeFrame(frame: Hpa): void

  /**
   * Notifies the watchers that bytes were changed other than by the processor: a device's DMA, a boot protocol, a frame freed or swapped. The
   * processor drops code compiled or decoded from them. `GuestMemory` calls it; guest stores do not (the processor sees those itself).
   */
  noteWrite(address: Hpa, length: number): void
  /** Calls the watcher for every `noteWrite` of this thread that touches a frame with `codeHolders`. Call the result to stop. */
  watchWrites(watcher: (address: Hpa, length: number) => void): () => void
  /** Ends this thread's use of the memory: frames in its magazine become free for all threads. The memory itself stays. */
  close(): void
}
export const HostMemory = token<HostMemory>('HostMemory')
