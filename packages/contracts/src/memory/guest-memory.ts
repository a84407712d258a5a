/** A guest's physical memory by guest-physical address: its map, and how it is read and written. */

import type { Gpa } from '../base/address.ts'
import { token } from '../base/token.ts'
import type { DmaMemory } from './dma-memory.ts'

/** A stretch of guest-physical address space. Whole frames, sorted, no two overlap. Addresses outside all regions are not backed. */
export interface MemoryRegion {
  readonly start: Gpa
  /** Bytes, a multiple of the frame size. */
  readonly length: number
  /**
   * `rom` ignores guest writes; boot protocols and firmware loading write it with `writeRom`. `pluggable` is RAM that no firmware or boot protocol
   * describes: a memory device tells its driver where it is and what of it may be used.
   */
  readonly kind: 'ram' | 'rom' | 'pluggable'
}

/** The memory regions of a machine. Fixed once the machine is created. */
export interface MemoryMap {
  /** Bytes of RAM, all regions together, pluggable ones too. */
  readonly size: number
  readonly regions: readonly MemoryRegion[]
}

/**
 * All of one VM's memory, as boot protocols, the guest's ABI and the processor's own accesses (hypercalls, emulation, debuggers) use it. The kernel
 * makes one per VM. Devices use `DmaMemory`; strategies and reclaim policies use `GuestFrames`.
 */
export interface GuestMemory extends DmaMemory, MemoryMap {
  /** Writes bytes to ROM (or RAM). For boot protocols, before the guest runs. */
  writeRom(address: number, from: Uint8Array): boolean
}
export const GuestMemory = token<GuestMemory>('GuestMemory')
