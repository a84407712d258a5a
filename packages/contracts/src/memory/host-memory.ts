/** The host's memory: one pool of frames that all VMs draw on. Knows no guest. */

import type { Hpa } from '../base/address.ts'
import { token } from '../base/token.ts'

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
  /** A frame that is nobody's and always zero: where reads of memory that was never touched may go. Nobody writes it. */
  readonly zeroFrame: Hpa
  /**
   * For each frame, how many processors hold code decoded from it. A processor adds itself (by `Atomics`) before it trusts what it decoded, and takes
   * itself off when it has dropped all of it. Writes to frames with none cost a look here.
   */
  readonly codeHolders: Uint16Array

  /** A zeroed frame with one reference, or undefined when none is free (then the caller asks for reclaim, or fails the VM). */
  allocateFrame(): Hpa | undefined
  /**
   * `count` adjoining zeroed frames at a multiple of `alignFrames` frames (a power of two, default 1), or undefined. Each
   * has one reference and is freed by itself.
   */
  allocateFrames(count: number, alignFrames?: number): Hpa | undefined
  /** One more owner of the frame (copy-on-write sharing). Throws `internal` where nobody owns it. */
  shareFrame(frame: Hpa): void
  /** Owners of the frame: 0 free, 1 private, more: shared, must be copied before it is written. */
  references(frame: Hpa): number
  /**
   * One owner less; at none the frame is free again. This thread's watchers hear of a write to all of it either way: what its other owners make of it
   * is not told here. Throws `internal` where nobody owns the frame.
   */
  freeFrame(frame: Hpa): void

  /**
   * Tell the watchers that bytes changed behind the processor's back: a device's DMA, a boot protocol, a frame freed or
   * swapped. The processor drops code compiled or decoded from them. `GuestMemory` calls it; guest stores do not
   * (the processor sees those itself).
   */
  noteWrite(address: Hpa, length: number): void
  /** Hear of every `noteWrite` of this thread that touches a frame with `codeHolders`. Call the result to stop. */
  watchWrites(watcher: (address: Hpa, length: number) => void): () => void
  /** This thread is done with the memory: what it had put by for itself is everybody's again. The memory stays. */
  close(): void
}
export const HostMemory = token<HostMemory>('HostMemory')
