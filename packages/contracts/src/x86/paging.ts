/**
 * Paging of an x86 guest: the guest's paging registers, what a strategy can do to a vCPU, and the faults it handles. A strategy is independent of its
 * caller: VMX, a translator or a paravirtual interface.
 */

import type { Gpa, Gva, Hpa } from '../base/address.ts'
import type { MemoryRange } from '../memory/guest-frames.ts'
import type { PagingStrategy } from '../roles/paging.ts'
import type { TableCalls } from '../paravirtual/table-calls.ts'

/** The format of the first-stage tables at a root. `none`: paging is off, addresses pass unchanged. */
export type PagingFormat = 'none' | 'legacy32' | 'pae' | 'fourLevel' | 'fiveLevel'

/** The guest's paging registers as the guest sees them. */
export interface GuestPagingState {
  readonly cr0: number
  readonly cr3: bigint
  readonly cr4: number
  readonly efer: number
  readonly format: PagingFormat
  /** SMAP does not apply to explicit accesses: RFLAGS.AC is set and CPL < 3. It always applies to implicit ones. */
  readonly userPagesAllowed?: boolean
}

/** The events that a strategy wants to handle. All are off initially. */
export interface PagingIntercepts {
  /** #PF calls `onPageFault` before the guest sees it. */
  readonly pageFault: boolean
  /** Writes of CR3. */
  readonly rootWrite: boolean
  /** INVLPG, INVPCID. */
  readonly invalidate: boolean
  /** Reads of CR3: needed if the hardware register holds another root than the guest wrote. */
  readonly rootRead: boolean
}

/** #PF error code bits (SDM Vol. 3A, "Page-Fault Exceptions"). */
export const PageFaultCode = { present: 1, write: 2, user: 4, reserved: 8, fetch: 16, protectionKey: 32 } as const

/** Access bits of a second-stage fault, as in the EPT violation's qualification 2:0. */
export const SecondStageAccess = { read: 1, write: 2, fetch: 4 } as const

/** What the strategy can do to one vCPU's hardware. Implemented by the CPU mode: by VMCS fields, a translator's tables or real registers. */
export interface PagingPort {
  readonly vcpu: number
  /** Call it each time: the object may be reused. */
  guestPaging(): GuestPagingState

  /**
   * Sets the first-stage tables that the hardware walks (shadow), in the given format. `undefined`: the guest's own CR3 (EPT, direct). Flushes
   * translations of the old root, unless `keep` says that the new root's cached translations are still valid.
   */
  setHardwareRoot(root: Hpa | undefined, format?: PagingFormat, keep?: boolean): void
  /** Sets the second-stage tables, 4 levels in EPT format, with accessed and dirty bits on request. `undefined`: no second stage. */
  setSecondStageRoot(root: Hpa | undefined, accessedDirty?: boolean): void
  setIntercepts(intercepts: PagingIntercepts): void
  /** Two roots at one privilege level, by machine address; 0: none. Of a CPU mode with `pvEntry`. */
  setRoots?(kernel: number, user: number): void

  /** Flushes translations. Takes effect before the next guest instruction of this vCPU. */
  flushAll(): void
  flushAddress(address: Gva): void
  /** Flushes translations to these guest-physical pages. Takes a whole list, because a processor may have to flush everything. */
  flushGuestPhysical(ranges: readonly MemoryRange[]): void
}

/**
 * What the CPU mode does next. The strategy owns the object, which is valid until its next call. `emulate`: executes the one instruction with its
 * writes going to guest memory, bypassing the hardware's tables, and calls `onTableUpdate` for each; for writes to write-protected tables. `wait`:
 * the instruction has no effect; the vCPU leaves with a `memory` exit and tries again after `GuestFrames.ready`.
 */
export type PagingOutcome =
  | { readonly next: 'resume' }
  | { readonly next: 'inject'; readonly address: Gva; readonly code: number }
  | { readonly next: 'mmio'; readonly address: Gpa }
  | { readonly next: 'emulate' }
  | { readonly next: 'wait'; readonly address: Gpa }
  | { readonly next: 'failure'; readonly message: string }

export const RESUME: PagingOutcome = Object.freeze({ next: 'resume' })

/**
 * A paging strategy for x86: `attach` once per vCPU. All `on...` are called by the CPU mode on the vCPU's thread, in the middle of an exit.
 */
export interface X86PagingStrategy extends PagingStrategy {
  /** Sets the roots and intercepts of a vCPU that has not run yet. */
  attach(port: PagingPort): void

  /** #PF by the hardware tables, with `pageFault` intercepted. `code` as `PageFaultCode`. */
  onPageFault(port: PagingPort, address: Gva, code: number): PagingOutcome
  /** The second stage had no translation that allows the access. `access` as `SecondStageAccess` bits. */
  onSecondStageFault(port: PagingPort, address: Gpa, access: number): PagingOutcome
  /** The guest wrote CR3 (already visible in `guestPaging`). `keepTranslations`: bit 63 with PCID. */
  onRootWrite(port: PagingPort, root: bigint, keepTranslations: boolean): PagingOutcome
  /** The guest invalidated one address, or (`undefined`) everything. */
  onInvalidate(port: PagingPort, address: Gva | undefined): PagingOutcome
  /** CR0, CR4 or EFER bits that change translation have changed (PG, WP, PAE, PSE, PGE, SMEP, SMAP, LME, NXE). Always called. */
  onModeChange(port: PagingPort): PagingOutcome
  /** A guest table was updated: by an emulated write, or explicitly (Xen's mmu_update). Validated before or after, as the strategy says. */
  onTableUpdate(port: PagingPort, address: Gpa, length: number): PagingOutcome

  /** Tables changed by call. With `directPaging`. */
  readonly tableCalls?: TableCalls
}
