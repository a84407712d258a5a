/**
 * Paging strategies: who writes the tables that the processor walks, and handles their faults. What the kernel needs of one on any architecture;
 * the CPU mode's half is `X86PagingStrategy` in x86/paging.ts.
 */

import type { Gpa } from '../base/address.ts'
import type { MemoryRange } from '../memory/guest-frames.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** Frames taken away or replaced, or to be seen at their next write. */
export type MemoryChange = 'unmapped' | 'writeProtected'

/** One per VM. Tables live in host frames that the strategy owns and gives back in `dispose`. */
export interface PagingStrategy extends Saveable {
  /**
   * Guest memory changed beneath: frames taken away or replaced (`unmapped`), or to be seen at their next write
   * (`writeProtected`). Afterwards no hardware table and no TLB may lead to the old frames or allow the write: only then do the frames become anybody
   * else's. Called by `GuestFrames`, once for all that changes together. Every vCPU of the VM is then outside `Vcpu.run`, or in an exit of its own (its
   * access reached a device or this strategy), behind which it looks its translations up anew.
   */
  onMemoryChange(ranges: readonly MemoryRange[], change: MemoryChange): void

  /** Accessed since the last call, and forget: for idle sampling. Undefined: the strategy cannot tell. */
  takeAccessed?(address: Gpa): boolean | undefined
  dispose(): void
}
export const PagingStrategy = token<PagingStrategy>('PagingStrategy')
