/**
 * Paging of an x86 guest: the guest's paging registers, what a strategy can do to a vCPU, and the faults it handles. The processor walks what it
 * is pointed at; a strategy never learns whether VMX, a translator or a paravirtual interface is asking.
 */

import type { Gpa, Gva, Hpa } from '../base/address.ts'
import type { MemoryRange } from '../memory/guest-frames.ts'
import type { PagingStrategy } from '../roles/paging.ts'
import type { TableCalls } from '../paravirtual/table-calls.ts'

/** Which kind of first-stage tables a root points to. `none`: paging is off, addresses pass unchanged. */
export type PagingFormat = 'none' | 'legacy32' | 'pae' | 'fourLevel' | 'fiveLevel'

/** The guest's paging registers as the guest sees them. */
export interface GuestPagingState {
  readonly cr0: number
  readonly cr3: bigint
  readonly cr4: number
  readonly efer: number
  readonly format: PagingFormat
  /** SMAP does not hold for explicit accesses now: RFLAGS.AC is set and CPL < 3. Implicit ones never profit. */
  readonly userPagesAllowed?: boolean
}

/** What the strategy wants to hear of. All off at first. */
export interface PagingIntercepts {
  /** #PF goes to `onPageFault` before the guest sees it. */
  readonly pageFault: boolean
  /** Writes of CR3. */
  readonly rootWrite: boolean
  /** INVLPG, INVPCID. */
  readonly invalidate: boolean
  /** Reads of CR3: where the hardware register holds another root than the guest wrote. */
  readonly rootRead: boolean
}

/** #PF error code bits (SDM Vol. 3A, "Page-Fault Exceptions"). */
export const PageFaultCode = { present: 1, write: 2, user: 4, reserved: 8, fetch: 16, protectionKey: 32 } as const

/** Access bits of a second-stage fault: what was tried. Bits as in the EPT violation's qualification 2:0. */
export const SecondStageAccess = { read: 1, write: 2, fetch: 4 } as const

/**
 * What the strategy can do to one vCPU's hardware. Implemented by the CPU mode, which makes each of it happen in its own
 * way: VMCS fields, the translator's tables, real registers.
 */
export interface PagingPort {
  readonly vcpu: number
  /** Read afresh each time: the object may be reused. */
  guestPaging(): GuestPagingState

  /**
   * First-stage tables the hardware really walks (shadow), in the format given. `undefined`: the guest's own CR3 (EPT, direct).
   * Implies a flush of what the old root gave unless `keep` says that the root's translations are still right.
   */
  setHardwareRoot(root: Hpa | undefined, format?: PagingFormat, keep?: boolean): void
  /** Second-stage tables, 4 levels in EPT format, with accessed and dirty bits if asked. `undefined`: no second stage. */
  setSecondStageRoot(root: Hpa | undefined, accessedDirty?: boolean): void
  setIntercepts(intercepts: PagingIntercepts): void
  /** Two roots at one privilege level, by machine address; 0: none. Of a CPU mode with `pvEntry`. */
  setRoots?(kernel: number, user: number): void

  /** Forget translations. Takes effect before the next guest instruction of this vCPU. */
  flushAll(): void
  flushAddress(address: Gva): void
  /** Forget what these guest-physical pages gave. Once for a whole list: a processor may have to forget everything. */
  flushGuestPhysical(ranges: readonly MemoryRange[]): void
}

/**
 * What the CPU mode does next. The object is the strategy's and may be reused: valid until its next call.
 * `emulate`: run the one instruction with its writes going to guest memory whatever the hardware tables say; each write to
 * a watched table is then reported by `onTableUpdate`. For tables that are write-protected yet written.
 * `wait`: nothing of the instruction is done; the vCPU leaves with a `memory` exit, and tries again once `GuestFrames.ready` says so.
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
  /** Set the roots and intercepts for a vCPU that has not run yet. */
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
