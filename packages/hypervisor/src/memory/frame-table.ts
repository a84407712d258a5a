/**
 * The frame of each page of one VM, and how a page obtains one: by demand, in runs of 2 MiB, by copying a shared frame, by filling a parked page.
 * This is the only table of page states; the states are drawn above `FrameState` in the contracts. @hot
 */

import { FRAME_MASK, FRAME_SIZE, gpa, hpa } from '@nonroot/contracts'
import type {
  FrameFiller,
  FrameRefusal,
  Gpa,
  HostMemory,
  Hpa,
  MemoryChange,
  MemoryRange,
  MemoryRegion,
  PagingStrategy,
} from '@nonroot/contracts'
import { FrameIndex, type Slot } from './frame-index.ts'
import { LeaseBook } from './lease-book.ts'

/** Frames in a run that a paging strategy can map by one large entry (2 MiB). */
const RUN = 512
const RUN_SIZE = RUN * FRAME_SIZE
/** Whole runs are taken only while at least this part of the host is free: overcommit goes frame by frame. */
const PLENTY = 1 / 8

/** Entries of the frame table that are not the address of a frame. */
export const ABSENT = 0
export const PARKED = 1
/** Returned if a frame cannot be had. */
export const NO_FRAME = -1

export interface Parked {
  readonly filler: FrameFiller
  /** Pages that are being filled, for the vCPUs that wait. */
  filling: Promise<string | undefined> | undefined
}

export interface GuestMemoryOptions {
  readonly hostMemory: HostMemory
  readonly regions: readonly MemoryRegion[]
  /** Take 2 MiB at once if the host has enough free frames. Default true. */
  readonly largeRuns?: boolean
  /** Frames of the host that are reserved for devices and tables, which cannot wait. Default 0. */
  readonly reserve?: number
  /** A vCPU waits for a frame: resolves when there may be one, or with the reason why there is none. Default: there is none. */
  readonly onShortage?: () => Promise<string | undefined>
  /** An access that cannot wait found no frame, or a filler failed: the VM must end. */
  readonly onFailure?: (message: string) => void
}

export class FrameTable {
  readonly options: GuestMemoryOptions
  readonly host: HostMemory
  readonly index: FrameIndex
  readonly leases: LeaseBook
  /** Host address of each frame as a signed word, `ABSENT` or `PARKED`. */
  readonly frames: Int32Array
  readonly parked = new Map<number, Parked>()
  /** How often each entry is pinned. */
  readonly pins = new Map<number, number>()
  resident = 0
  /** Is notified of every change; set when the strategy exists. */
  paging: Pick<PagingStrategy, 'onMemoryChange'> | undefined
  #largeRuns: boolean

  constructor(options: GuestMemoryOptions) {
    const { hostMemory, regions, largeRuns = true } = options
    this.options = options
    this.host = hostMemory
    this.index = new FrameIndex(regions)
    this.leases = new LeaseBook((frame) => hostMemory.freeFrame(hpa(frame)))
    this.frames = new Int32Array(this.index.length)
    this.#largeRuns = largeRuns
  }

  // A page obtains a frame: its host address, or NO_FRAME if the host has none.

  /** The page's own frame, which no other page shares. */
  makePrivate(slot: Slot, address: number): number {
    const entry = this.index.entry(slot, address)
    const frame = this.frames[entry]! >>> 0
    if (frame === ABSENT) return this.#bring(slot, address)
    if (frame === PARKED) return this.bringBack(slot, address)
    return this.host.references(hpa(frame)) > 1 ? this.#copy(entry, frame, address) : frame
  }

  #bring(slot: Slot, address: number): number {
    const entry = this.index.entry(slot, address)
    if (this.#largeRuns && slot.ram && this.#bringRun(slot, address)) return this.frames[entry]! >>> 0
    const frame = this.host.allocateFrame()
    if (frame === undefined) return NO_FRAME
    this.frames[entry] = frame
    this.resident++
    return frame
  }

  /** Allocates the whole 2 MiB around an address contiguously in host memory, so that one large entry can map it. */
  #bringRun(slot: Slot, address: number): boolean {
    const start = address - (address % RUN_SIZE)
    if (start < slot.start || start + RUN_SIZE > slot.end) return false
    const first = this.index.entry(slot, start)
    for (let entry = first; entry < first + RUN; entry++) if (this.frames[entry] !== ABSENT) return false
    if (this.host.freeGuestFrames - RUN < this.host.guestFrames * PLENTY) return false
    const run = this.host.allocateFrames(RUN, RUN)
    if (run === undefined) {
      // Fragmented: searching again each time would cost more than it gains.
      this.#largeRuns = false
      return false
    }
    for (let offset = 0; offset < RUN; offset++) this.frames[first + offset] = run + offset * FRAME_SIZE
    this.resident += RUN
    return true
  }

  #copy(entry: number, shared: number, address: number): number {
    const copy = this.host.allocateFrame()
    if (copy === undefined) return NO_FRAME
    this.host.bytes.copyWithin(copy, shared, shared + FRAME_SIZE)
    this.frames[entry] = copy
    this.notifyOf(address, 'unmapped')
    this.leases.free(shared)
    return copy
  }

  /** Brings a parked page back at once. If the filler throws, the VM ends, and the page has undefined content. */
  bringBack(slot: Slot, address: number): number {
    const entry = this.index.entry(slot, address)
    const frame = this.host.allocateFrame()
    if (frame === undefined) return NO_FRAME
    const { filler } = this.parked.get(entry)!
    const page = gpa(address - (address & FRAME_MASK))
    try {
      filler.fillNow(page, this.host.bytes.subarray(frame, frame + FRAME_SIZE))
    } catch (error) {
      this.options.onFailure?.(lost(page, error))
    }
    this.deliver(entry, frame, page)
    return frame
  }

  deliver(entry: number, frame: Hpa, page: Gpa): void {
    this.forget(entry, page)
    this.frames[entry] = frame
    this.resident++
    this.host.noteWrite(frame, FRAME_SIZE)
  }

  /** A parked page becomes absent. */
  forget(entry: number, address: number): void {
    const parked = this.parked.get(entry)!
    this.parked.delete(entry)
    this.frames[entry] = ABSENT
    parked.filler.drop?.(gpa(address - (address & FRAME_MASK)))
  }

  /** Frees all frames. */
  clear(): void {
    this.pins.clear()
    for (let entry = 0; entry < this.frames.length; entry++) {
      const frame = this.frames[entry]! >>> 0
      if (frame === PARKED) this.forget(entry, this.index.addressOf(entry))
      else if (frame !== ABSENT) {
        this.frames[entry] = ABSENT
        this.resident--
        this.leases.free(frame)
      }
    }
  }

  /** Whether the host's free frames are those that are reserved for accesses that cannot wait. */
  isShort(): boolean {
    const { reserve = 0 } = this.options
    return this.host.freeGuestFrames <= reserve
  }

  get exhausted(): string {
    return `host memory is exhausted: all ${this.host.guestFrames} frames are in use; make host.memory larger or machine.memory smaller`
  }

  // Before a page loses its frame

  entryOfRam(address: number): number | undefined {
    const slot = this.index.find(address, 1)
    return slot?.ram ? this.index.entry(slot, address) : undefined
  }

  held(entry: number, frame: number): FrameRefusal | undefined {
    if (this.pins.has(entry)) return 'pinned'
    return this.leases.isLent(frame, FRAME_SIZE) ? 'lent' : undefined
  }

  isSame(one: number, other: number): boolean {
    const { words } = this.host
    for (let word = 0; word < FRAME_SIZE / 4; word++)
      if (words[(one >>> 2) + word] !== words[(other >>> 2) + word]) return false
    return true
  }

  notifyOf(address: number, change: MemoryChange): void {
    this.notify([{ address: gpa(address - (address & FRAME_MASK)), length: FRAME_SIZE }], change)
  }
  notify(ranges: readonly MemoryRange[], change: MemoryChange): void {
    this.paging?.onMemoryChange(ranges, change)
  }
}

export const lost = (page: number, error: unknown): string =>
  `memory at 0x${page.toString(16)} cannot be brought back: ${error instanceof Error ? error.message : String(error)}`
