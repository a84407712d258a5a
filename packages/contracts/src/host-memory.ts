/** The host's memory: one pool of frames that all VMs draw on. Knows no guest. */

import type { Hpa } from './address.ts'
import { token } from './token.ts'

/**
 * ONE shared WebAssembly.Memory. A host-physical address is a byte offset into it, so compiled guest code, page walkers and
 * devices use the same numbers. The kernel owns it; strategies take frames for their tables, `GuestMemory` takes them for
 * the guest on demand. Not growing: `bytes` and `view` stay valid for the life of the host.
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

  /** A zeroed frame with one reference, or undefined when none is free (then the caller asks for reclaim, or fails the VM). */
  allocateFrame(): Hpa | undefined
  /**
   * `count` adjoining zeroed frames at a multiple of `alignFrames` frames (a power of two, default 1), or undefined. Each
   * has one reference and is freed by itself.
   */
  allocateFrames(count: number, alignFrames?: number): Hpa | undefined
  /** One more owner of the frame (copy-on-write sharing). */
  shareFrame(frame: Hpa): void
  /** Owners of the frame: 0 free, 1 private, more: shared, must be copied before it is written. */
  references(frame: Hpa): number
  /** One owner less; at none the frame is free again, and watchers hear of a write to all of it. */
  freeFrame(frame: Hpa): void

  /**
   * Tell the watchers that bytes changed behind the processor's back: a device's DMA, a boot protocol, a frame freed or
   * swapped. The processor drops code compiled or decoded from them. `GuestMemory` calls it; guest stores do not
   * (the processor sees those itself).
   */
  noteWrite(address: Hpa, length: number): void
  /** Hear of every `noteWrite`. Call the result to stop. */
  watchWrites(watcher: (address: Hpa, length: number) => void): () => void
}
export const HostMemory = token<HostMemory>('HostMemory')
