/**
 * Paging strategies: write the tables that the processor walks, and handle their faults. This is what the kernel needs on any architecture;
 * `X86PagingStrategy` in x86/paging.ts adds what the CPU mode needs.
 */

import type { Gpa } from '../base/address.ts'
import type { MemoryRange } from '../memory/guest-frames.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** Frames were taken away or replaced, or their next write must fault. */
export type MemoryChange = 'unmapped' | 'writeProtected'

/** One per VM. Tables are in host frames that the strategy owns and frees in `dispose`. */
export interface PagingStrategy extends Saveable {
  /**
   * Guest memory changed: frames were taken away or replaced (`unmapped`), or their next write must fault (`writeProtected`). On return no hardware
   * table and no TLB may lead to the old frames or allow the write; the frames are freed only then. `GuestFrames` calls it once for all pages that
   * change together. At that time every vCPU of the VM is outside `Vcpu.run`, or in an exit (a device access or a fault), after which it looks up its
   * translations again.
   */
  onMemoryChange(ranges: readonly MemoryRange[], change: MemoryChange): void

  /** Whether the page was accessed since the last call; clears the mark. For idle sampling. Undefined: the strategy does not know. */
  takeAccessed?(address: Gpa): boolean | undefined
  dispose(): void
}
export const PagingStrategy = token<PagingStrategy>('PagingStrategy')
