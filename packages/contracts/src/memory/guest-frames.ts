/** The frames behind a guest's memory: paging strategies map them, reclaim policies take them away. */

import type { Access, Gpa, Hpa } from '../base/address.ts'
import { token } from '../base/token.ts'
import type { MemoryMap } from './guest-memory.ts'

/** A stretch of guest-physical addresses. */
export interface MemoryRange {
  readonly address: Gpa
  readonly length: number
}

/**
 * Brings back the content of parked pages: a swap file, compressed memory, a snapshot that is read on demand, the source host of a migration. An
 * error that it throws, or rejects with, ends the VM with its message.
 */
export interface FrameFiller {
  /**
   * Saves the content of a page that is being parked. No translation leads to the page any more, and its frame is about to be freed. False: the page
   * keeps its frame. Not called for pages without a frame.
   */
  keep?(address: Gpa, content: Uint8Array): boolean
  /**
   * Writes the page's content, synchronously: for accesses of devices, which cannot wait, and for vCPUs if there is no `fill`. May be called while
   * `fill` is in progress.
   */
  fillNow(address: Gpa, into: Uint8Array): void
  /** Fetches the page's content while the vCPU that needs it waits; other vCPUs run. Absent: `fillNow` is fast enough for vCPUs as well. */
  fill?(address: Gpa): Promise<Uint8Array>
  /** Whether `fillNow` is fast for this page at present, although there is a `fill`: a vCPU does not wait then. */
  isNear?(address: Gpa): boolean
  /** The filler can forget the page: it was brought back, released or overwritten. Called once for each page parked. */
  drop?(address: Gpa): void
}

/**
 * The states of one page of guest RAM. A pinned page is private or shared and refuses the transitions marked (p).
 *
 * ```
 *                    touch                   expose, share
 *        absent ───────────────► private ─────────────(p)──► shared
 *        ▲  │ ▲                  ▲  │  ▲                     │  │
 *        │  │ └──── release (p) ─┘  │  └── write: a copy, or ─┘  │
 *        │  │                       │      the last owner        │
 *        │  │ park            park (p)                  park (p) │
 *        │  ▼                       ▼                            │
 *        └─ parked ◄─────────────────────────────────────────────┘
 * release   │  ▲  │
 *           │  │  └── fillNow, or written over as a whole ──► private
 *    a vCPU │  │ keep said no: back where it was
 *     waits ▼
 *        filling ── fill has delivered ──► private
 * ```
 *
 * `replace` leads from every state to private or shared, depending on the owners of the frame that it is given.
 */
export type FrameState =
  /** Never accessed, or released: reads as zeros. */
  | { readonly kind: 'absent' }
  /** One owner: may be mapped writable. */
  | { readonly kind: 'private'; readonly frame: Hpa; readonly pins: number }
  /** Several owners, in this VM or another: copied before it is written. */
  | { readonly kind: 'shared'; readonly frame: Hpa; readonly pins: number }
  /** The filler has its content. */
  | { readonly kind: 'parked'; readonly filler: FrameFiller }
  /** Parked, and `fill` is in progress. */
  | { readonly kind: 'filling'; readonly filler: FrameFiller }

/**
 * Why nothing was changed. `none`: no RAM, or no frame. `pinned`: see `pin`. `lent`: a DMA transfer that uses the frame is in progress. `different`:
 * the contents differ. `declined`: `keep` returned false.
 */
export type FrameRefusal = 'none' | 'parked' | 'pinned' | 'lent' | 'different' | 'declined'

/** How a balloon device returns memory that its guest does not need. A capability that the kernel offers to every device. */
export interface FrameReturn {
  /**
   * Releases all whole pages of RAM in the ranges, except pinned ones. Their content is lost: they read as zeros. Returns how many pages gave up a
   * frame; a frame that is lent becomes free when its leases end. When this returns, no translation leads to the pages.
   */
  release(ranges: readonly MemoryRange[]): number
}
export const FrameReturn = token<FrameReturn>('FrameReturn')

/** How many pages of a VM are in which state. */
export interface FrameUsage {
  /** Pages that have a frame: private and shared ones. */
  readonly residentFrames: number
  /** Of the resident ones, those whose frame has other owners too. */
  readonly sharedFrames: number
  /** Pages whose content a filler has. */
  readonly parkedFrames: number
  readonly pinnedFrames: number
}

/** One page of a VM's memory in a snapshot. */
export interface MemoryPage {
  readonly address: Gpa
  /** A frame's bytes. Of `pages()`: host memory itself, valid until the next page is asked for. */
  readonly bytes: Uint8Array
}

/**
 * Frames of one VM. Methods that take a frame away or replace it call `PagingStrategy.onMemoryChange` before the frame is freed. Call them on the VM's
 * thread, outside `Vcpu.run` or in an exit.
 */
export interface GuestFrames extends MemoryMap, FrameReturn {
  /**
   * Host address of the *byte* at `address`, its frame allocated (and made private, for `write`); undefined where there is no
   * memory that allows the access. For paging strategies, which map the frame: valid to the end of the frame, and until `PagingStrategy.onMemoryChange`
   * names it. A `write` marks the frame dirty. `wait`: the page is parked, or the host has no frame; `ready` tells when to try again.
   */
  translate(address: number, access: Access): Hpa | 'wait' | undefined
  /** After `wait`: resolves when the access can be retried, or with the reason why the VM must end. */
  ready(address: number): Promise<string | undefined>
  /** As `translate`, but undefined if there is no frame at present: for scanning without allocating frames. */
  peek(address: number): Hpa | undefined
  /** Undefined where there is no memory. */
  state(address: number): FrameState | undefined
  /** Whether a frame may be mapped writable right now: RAM, private, and not awaiting its first write for the dirty log. */
  isWritable(address: number): boolean

  /**
   * Where a page that is no memory leads on the host's bus (`HOST_MMIO`): registers of a device that is assigned to this VM. Undefined: nowhere. Valid
   * until `PagingStrategy.onMemoryChange` names the page.
   */
  registerPage?(address: number): number | undefined

  /** Pages that have a frame, and those of them that are pinned. */
  readonly residentFrames: number
  readonly pinnedFrames: number
  /** Counts all pages by state. Looks at every page: for reports, not for each access. */
  usage(): FrameUsage

  /** Hands the page's content to a filler and frees its frame. A page without a frame can be parked if the filler has its content already. */
  park(address: number, filler: FrameFiller): 'done' | FrameRefusal
  /** Write-protects the page and returns a reference to its frame. The caller owns the reference: it passes it to `share` or `replace`, or frees it. */
  expose(address: number): Hpa | FrameRefusal
  /** Replaces the page's frame by one with the same content, which is compared here. If `done`, the page takes over the caller's reference. */
  share(address: number, frame: Hpa): 'done' | FrameRefusal
  /** Replaces the page's frame, whatever its content. If `done`, the page takes over the caller's reference. */
  replace(address: number, frame: Hpa): 'done' | FrameRefusal
  /** Makes the page private and keeps its frame until the same number of `unpin`: for device assignment, grants, tables that hardware reads. */
  pin(address: number): Hpa | 'wait' | undefined
  /** False: it was not pinned. */
  unpin(address: number): boolean

  /**
   * Makes one page of RAM, absent at first, where the machine has no memory: for pages of the hypervisor's that a guest maps where it likes (Xen's grant
   * tables). It is in neither `regions` nor `size`. False: there is memory already, or no room for another such page.
   */
  addPage(address: number): boolean
  /** Takes away a page that `addPage` made, unless it is pinned. False: nothing was taken away. */
  removePage(address: number): boolean

  /** Starts or stops the dirty log. Starting write-protects mapped frames, so that first writes are detected. */
  setDirtyLog(on: boolean): void
  /** Frames written since the last call (start addresses, ascending), and a fresh log. Empty while off. */
  takeDirty(): Gpa[]

  /** All pages that are not zero, in ascending order, one at a time: for snapshots. Only while no vCPU of the VM runs. */
  pages(): Iterable<MemoryPage>
  /** Replaces all content by these pages. Throws `snapshot.mismatch` for a page that this machine does not have. Only while no vCPU of the VM runs. */
  load(pages: Iterable<MemoryPage>): void
}
export const GuestFrames = token<GuestFrames>('GuestFrames')
