/**
 * Paging strategies: who writes the tables that the processor walks, and handles their faults. What the kernel needs of one on any architecture;
 * the CPU mode's half is `X86PagingStrategy` in x86/paging.ts.
 */

import type { Gpa } from '../base/address.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** One per VM. Tables live in host frames that the strategy owns and gives back in `dispose`. */
export interface PagingStrategy extends Saveable {
  /**
   * Guest memory changed beneath: frames taken away or replaced (`unmapped`), or to be seen at their next write
   * (`writeProtected`). Afterwards no hardware table may lead to the old frame or allow the write. Called by `GuestMemory`,
   * with no vCPU of the VM inside guest code.
   */
  onMemoryChange(address: Gpa, length: number, change: 'unmapped' | 'writeProtected'): void

  /** Accessed since the last call, and forget: for idle sampling. Undefined: the strategy cannot tell. */
  takeAccessed?(address: Gpa): boolean | undefined
  dispose(): void
}
export const PagingStrategy = token<PagingStrategy>('PagingStrategy')
