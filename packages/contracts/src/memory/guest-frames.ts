/** The frames behind a guest's memory: what paging strategies map, and what reclaim takes away. Knows no page table and no technique. */

import type { Access, Gpa, Hpa } from '../base/address.ts'
import { token } from '../base/token.ts'
import type { MemoryMap } from './guest-memory.ts'

/** A stretch of guest-physical addresses. */
export interface MemoryRange {
  readonly address: Gpa
  readonly length: number
}

/**
 * Whoever can bring back the content of pages that were parked: a swap file, compressed memory, a snapshot that is read as it is needed, the other host
 * of a migration. It is asked once a page; what it throws or rejects with ends the VM, with its message.
 */
export interface FrameFiller {
  /**
   * Keep the content of a page that is being parked: no translation leads to it any more, and its frame is about to go. False: it shall stay where
   * it is. Not called for pages that never held anything.
   */
  keep?(address: Gpa, content: Uint8Array): boolean
  /** Write the page's content now, however long it takes: a device asks for it in the middle of a request, or there is no `fill`. May be called while `fill` runs. */
  fillNow(address: Gpa, into: Uint8Array): void
  /** Get the page's content, while the vCPU that needs it waits and all else goes on. Absent: `fillNow` is fast enough for vCPUs, too. */
  fill?(address: Gpa): Promise<Uint8Array>
  /** The page needs nothing of it any more: it was brought back, given back or written over. Once for each page parked. */
  drop?(address: Gpa): void
}

/**
 * What becomes of one page of guest RAM. `pinned` is no state of its own: it forbids all that is marked (p).
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
 * `replace` leads from every state to private or shared, by how many own the frame it is given.
 */
export type FrameState =
  /** Never touched, or released: reads as zeros. */
  | { readonly kind: 'absent' }
  /** One owner: may be mapped writable. */
  | { readonly kind: 'private'; readonly frame: Hpa; readonly pins: number }
  /** Several owners, in this VM or another: copied before it is written. */
  | { readonly kind: 'shared'; readonly frame: Hpa; readonly pins: number }
  /** Its content is with the filler. */
  | { readonly kind: 'parked'; readonly filler: FrameFiller }
  /** As parked, and on its way back. */
  | { readonly kind: 'filling'; readonly filler: FrameFiller }

/**
 * Why nothing was changed. `none`: no RAM, or no frame there. `pinned`, `lent`: whoever pinned it, or a transfer under way, counts on the frame.
 * `different`: another content. `declined`: the filler did not want it.
 */
export type FrameRefusal = 'none' | 'parked' | 'pinned' | 'lent' | 'different' | 'declined'

/** Where a guest's own memory goes that it does not need: a balloon's way to give it back. A capability that the kernel offers to every device. */
export interface FrameReturn {
  /**
   * Take away all whole frames in the ranges; what of them is no RAM, or is pinned, stays as it is. Their content is lost; the next touch gives zeros. How
   * many pages gave up a frame, which is the host's once the leases that hold it end. No translation leads to them any more when this returns.
   */
  release(ranges: readonly MemoryRange[]): number
}
export const FrameReturn = token<FrameReturn>('FrameReturn')

/** One page of a VM's memory, as a snapshot has it. */
export interface MemoryPage {
  readonly address: Gpa
  /** A frame's bytes. Of `pages()`: host memory itself, valid until the next page is asked for. */
  readonly bytes: Uint8Array
}

/**
 * Frames of one VM. Whatever takes a frame away or replaces it has told the paging strategy (`onMemoryChange`) before the frame becomes anybody else's.
 * All of it is called on the VM's thread, outside `Vcpu.run` or in an exit.
 */
export interface GuestFrames extends MemoryMap, FrameReturn {
  /**
   * Host address of the *byte* at `address`, its frame allocated (and made private, for `write`); undefined where there is no
   * memory that allows the access. For paging strategies, which map the frame: valid to the end of the frame, and until `PagingStrategy.onMemoryChange`
   * names it. A `write` marks the frame dirty. `wait`: the page is parked, or the host has no frame; `ready` tells when to try again.
   */
  translate(address: number, access: Access): Hpa | 'wait' | undefined
  /** After `wait`: resolves when the access may be tried again, or with a sentence that says why the VM has to end. */
  ready(address: number): Promise<string | undefined>
  /** As `translate`, but undefined where no frame is now: for scanning without bringing frames into being. */
  peek(address: number): Hpa | undefined
  /** Undefined where there is no memory. */
  state(address: number): FrameState | undefined
  /** Whether a frame may be mapped writable right now: RAM, private, and not awaiting its first write for the dirty log. */
  isWritable(address: number): boolean

  /** Frames that hold something now, and those of them that are pinned. */
  readonly residentFrames: number
  readonly pinnedFrames: number

  /** Leave the page's content to a filler and give up its frame. Pages that hold nothing may be parked, too: the filler then has their content already. */
  park(address: number, filler: FrameFiller): 'done' | FrameRefusal
  /** Make the page's frame a shared one: the caller owns the reference that it is given, and hands it on (`share`, `replace`) or frees it. */
  expose(address: number): Hpa | FrameRefusal
  /** Put a frame that holds the same in place of the page's own. The caller's reference becomes the page's, if done. The contents are compared here. */
  share(address: number, frame: Hpa): 'done' | FrameRefusal
  /** Put another frame in place of what is there, whatever it holds. The caller's reference becomes the page's, if done. */
  replace(address: number, frame: Hpa): 'done' | FrameRefusal
  /** Bring the page in, private, and keep its frame where it is until as many `unpin`: for device assignment, grants, tables that hardware reads. */
  pin(address: number): Hpa | 'wait' | undefined
  /** False: it was not pinned. */
  unpin(address: number): boolean

  /** Start or stop the dirty log. Starting write-protects what is mapped, so that first writes are seen. */
  setDirtyLog(on: boolean): void
  /** Frames written since the last call (start addresses, ascending), and a fresh log. Empty while off. */
  takeDirty(): Gpa[]

  /** All pages that hold something other than zeros, in ascending order, one at a time: for snapshots. While no vCPU of the VM runs. */
  pages(): Iterable<MemoryPage>
  /** Everything is dropped, then the pages are put in. Throws `snapshot.mismatch` at a page that this machine has not. While no vCPU of the VM runs. */
  load(pages: Iterable<MemoryPage>): void
}
export const GuestFrames = token<GuestFrames>('GuestFrames')
