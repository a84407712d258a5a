/**
 * The frames of one VM: which frame each page has, and how a page gets and loses its frame. This is the only table of page states; the states are
 * drawn above `FrameState` in the contracts. @hot
 */

import { FRAME_MASK, FRAME_SIZE, gpa, hpa, NonrootError } from '@nonroot/contracts'
import type {
  Access,
  FrameFiller,
  FrameRefusal,
  FrameState,
  Gpa,
  GuestFrames,
  HostMemory,
  Hpa,
  MemoryChange,
  MemoryPage,
  MemoryRange,
  MemoryRegion,
  PagingStrategy,
} from '@nonroot/contracts'
import { FrameIndex, rangesOf, type Slot } from './frame-index.ts'
import { LeaseBook } from './lease-book.ts'

/** Frames in a run that a paging strategy can map by one large entry (2 MiB). */
const RUN = 512
const RUN_SIZE = RUN * FRAME_SIZE
/** Whole runs are taken only while at least this part of the host is free: overcommit goes frame by frame. */
const PLENTY = 1 / 8

/** Entries of the frame table that are not the address of a frame. */
const ABSENT = 0
const PARKED = 1
/** Returned if a frame cannot be had. */
export const NO_FRAME = -1

interface Parked {
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

export class DemandGuestFrames implements GuestFrames {
  readonly size: number
  readonly regions: readonly MemoryRegion[]
  protected readonly host: HostMemory
  protected readonly index: FrameIndex
  protected readonly leases: LeaseBook
  /** One byte per frame: written since the dirty log was last taken. */
  protected dirty: Uint8Array | undefined
  /** Host address of each frame as a signed word, `ABSENT` or `PARKED`. */
  readonly #frames: Int32Array
  readonly #parked = new Map<number, Parked>()
  /** How often each entry is pinned. */
  readonly #pins = new Map<number, number>()
  readonly #options: GuestMemoryOptions
  #resident = 0
  #largeRuns: boolean
  #paging: Pick<PagingStrategy, 'onMemoryChange'> | undefined

  constructor(options: GuestMemoryOptions) {
    const { hostMemory, regions, largeRuns = true } = options
    this.#options = options
    this.host = hostMemory
    this.index = new FrameIndex(regions)
    this.regions = regions
    this.size = this.index.size
    this.leases = new LeaseBook((frame) => hostMemory.freeFrame(hpa(frame)))
    this.#frames = new Int32Array(this.index.length)
    this.#largeRuns = largeRuns
  }

  /** Sets the strategy that `onMemoryChange` notifies. Once, when the strategy exists. */
  setPaging(paging: Pick<PagingStrategy, 'onMemoryChange'>): void {
    this.#paging = paging
  }

  get residentFrames(): number {
    return this.#resident
  }

  get pinnedFrames(): number {
    return this.#pins.size
  }

  // Accesses that cannot wait: they get a host address, or NO_FRAME after `onFailure`.

  /** The byte's host address, for reading. A page that was never written reads from the zero frame. */
  protected forRead(slot: Slot, address: number): number {
    const frame = this.#frames[this.index.entry(slot, address)]! >>> 0
    if (frame > PARKED) return frame + (address & FRAME_MASK)
    return frame === ABSENT
      ? this.host.zeroFrame + (address & FRAME_MASK)
      : this.#settle(this.#bringBack(slot, address), address)
  }

  /** The frame is there, private and marked dirty; the byte's host address. `whole`: the access writes every byte of the page. */
  protected forWrite(slot: Slot, address: number, whole = false): number {
    const entry = this.index.entry(slot, address)
    let frame = this.#frames[entry]! >>> 0
    if (frame <= PARKED || this.host.references(hpa(frame)) > 1) {
      if (frame === PARKED && whole) this.#forget(entry, address)
      frame = this.#makePrivate(slot, address)
      if (frame === NO_FRAME) return this.#settle(NO_FRAME, address)
    }
    if (this.dirty) this.dirty[entry] = 1
    return frame + (address & FRAME_MASK)
  }

  /** For a lease for reading: the page needs a frame of its own, as the guest may write it meanwhile. */
  protected forReadLease(slot: Slot, address: number): number {
    const frame = this.#frames[this.index.entry(slot, address)]! >>> 0
    return frame === ABSENT ? this.#settle(this.#bring(slot, address), address) : this.forRead(slot, address)
  }

  protected holdsNothing(slot: Slot, address: number): boolean {
    return this.#frames[this.index.entry(slot, address)] === ABSENT
  }

  #settle(frame: number, address: number): number {
    if (frame !== NO_FRAME) return frame + (address & FRAME_MASK)
    this.#options.onFailure?.(this.#exhausted)
    return NO_FRAME
  }

  get #exhausted(): string {
    return `host memory is exhausted: all ${this.host.totalFrames} frames are in use; make host.memory larger or machine.memory smaller`
  }

  // Gives the page a frame: returns its host address, or NO_FRAME if the host has none.

  #makePrivate(slot: Slot, address: number): number {
    const entry = this.index.entry(slot, address)
    const frame = this.#frames[entry]! >>> 0
    if (frame === ABSENT) return this.#bring(slot, address)
    if (frame === PARKED) return this.#bringBack(slot, address)
    return this.host.references(hpa(frame)) > 1 ? this.#copy(entry, frame, address) : frame
  }

  #bring(slot: Slot, address: number): number {
    const entry = this.index.entry(slot, address)
    if (this.#largeRuns && slot.ram && this.#bringRun(slot, address)) return this.#frames[entry]! >>> 0
    const frame = this.host.allocateFrame()
    if (frame === undefined) return NO_FRAME
    this.#frames[entry] = frame
    this.#resident++
    return frame
  }

  /** Allocates the whole 2 MiB around an address contiguously in host memory, so that one large entry can map it. */
  #bringRun(slot: Slot, address: number): boolean {
    const start = address - (address % RUN_SIZE)
    if (start < slot.start || start + RUN_SIZE > slot.end) return false
    const first = this.index.entry(slot, start)
    for (let entry = first; entry < first + RUN; entry++) if (this.#frames[entry] !== ABSENT) return false
    if (this.host.freeFrames - RUN < this.host.totalFrames * PLENTY) return false
    const run = this.host.allocateFrames(RUN, RUN)
    if (run === undefined) {
      // Fragmented: searching again each time would cost more than it gains.
      this.#largeRuns = false
      return false
    }
    for (let offset = 0; offset < RUN; offset++) this.#frames[first + offset] = run + offset * FRAME_SIZE
    this.#resident += RUN
    return true
  }

  #copy(entry: number, shared: number, address: number): number {
    const copy = this.host.allocateFrame()
    if (copy === undefined) return NO_FRAME
    this.host.bytes.copyWithin(copy, shared, shared + FRAME_SIZE)
    this.#frames[entry] = copy
    this.#tellOf(address, 'unmapped')
    this.leases.free(shared)
    return copy
  }

  /** Brings a parked page back at once. If the filler throws, the VM ends, and the page has undefined content. */
  #bringBack(slot: Slot, address: number): number {
    const entry = this.index.entry(slot, address)
    const frame = this.host.allocateFrame()
    if (frame === undefined) return NO_FRAME
    const { filler } = this.#parked.get(entry)!
    const page = gpa(address - (address & FRAME_MASK))
    try {
      filler.fillNow(page, this.host.bytes.subarray(frame, frame + FRAME_SIZE))
    } catch (error) {
      this.#options.onFailure?.(lost(page, error))
    }
    this.#deliver(entry, frame, page)
    return frame
  }

  #deliver(entry: number, frame: Hpa, page: Gpa): void {
    this.#forget(entry, page)
    this.#frames[entry] = frame
    this.#resident++
    this.host.noteWrite(frame, FRAME_SIZE)
  }

  /** A parked page becomes absent. */
  #forget(entry: number, address: number): void {
    const parked = this.#parked.get(entry)!
    this.#parked.delete(entry)
    this.#frames[entry] = ABSENT
    parked.filler.drop?.(gpa(address - (address & FRAME_MASK)))
  }

  // For vCPUs

  translate(address: number, access: Access): Hpa | 'wait' | undefined {
    const slot = this.index.find(address, 1)
    if (!slot || (access === 'write' && !slot.ram)) return undefined
    const entry = this.index.entry(slot, address)
    let frame = this.#frames[entry]! >>> 0
    if (frame <= PARKED || (access === 'write' && this.host.references(hpa(frame)) > 1)) {
      if (frame === PARKED && this.#parked.get(entry)!.filler.fill) return 'wait'
      if (this.#isShort()) return 'wait'
      frame = this.#makePrivate(slot, address)
      if (frame === NO_FRAME) return 'wait'
    }
    if (access === 'write' && this.dirty) this.dirty[entry] = 1
    return hpa(frame + (address & FRAME_MASK))
  }

  #isShort(): boolean {
    const { reserve = 0 } = this.#options
    return reserve > 0 && this.host.freeFrames <= reserve
  }

  ready(address: number): Promise<string | undefined> {
    const slot = this.index.find(address, 1)
    const entry = slot === undefined ? -1 : this.index.entry(slot, address)
    const parked = this.#parked.get(entry)
    if (!parked) return this.#shortage()
    parked.filling ??= this.#fill(entry, parked, gpa(address - (address & FRAME_MASK)))
    return parked.filling
  }

  async #shortage(): Promise<string | undefined> {
    const { onShortage } = this.#options
    return onShortage ? onShortage() : this.#exhausted
  }

  async #fill(entry: number, parked: Parked, page: Gpa): Promise<string | undefined> {
    let content: Uint8Array
    try {
      content = await parked.filler.fill!(page)
      if (content.length !== FRAME_SIZE) throw new Error(`its content has ${content.length} bytes`)
    } catch (error) {
      parked.filling = undefined
      return this.#parked.get(entry) === parked ? lost(page, error) : undefined
    }
    for (;;) {
      // In the meantime a device may have needed the page, or the guest may have released it.
      if (this.#parked.get(entry) !== parked) return undefined
      const frame = this.#isShort() ? undefined : this.host.allocateFrame()
      if (frame !== undefined) {
        this.host.bytes.set(content, frame)
        this.#deliver(entry, frame, page)
        return undefined
      }
      const failure = await this.#shortage()
      if (failure !== undefined) return failure
    }
  }

  peek(address: number): Hpa | undefined {
    const slot = this.index.find(address, 1)
    if (!slot) return undefined
    const frame = this.#frames[this.index.entry(slot, address)]! >>> 0
    return frame <= PARKED ? undefined : hpa(frame + (address & FRAME_MASK))
  }

  state(address: number): FrameState | undefined {
    const slot = this.index.find(address, 1)
    if (!slot) return undefined
    const entry = this.index.entry(slot, address)
    const frame = hpa(this.#frames[entry]! >>> 0)
    if (frame === ABSENT) return { kind: 'absent' }
    if (frame === PARKED) {
      const { filler, filling } = this.#parked.get(entry)!
      return { kind: filling ? 'filling' : 'parked', filler }
    }
    return { kind: this.host.references(frame) > 1 ? 'shared' : 'private', frame, pins: this.#pins.get(entry) ?? 0 }
  }

  isWritable(address: number): boolean {
    const slot = this.index.find(address, 1)
    if (!slot?.ram) return false
    const entry = this.index.entry(slot, address)
    const frame = this.#frames[entry]! >>> 0
    if (frame <= PARKED || this.host.references(hpa(frame)) > 1) return false
    return this.dirty === undefined || this.dirty[entry] === 1
  }

  // How a page loses its frame

  release(ranges: readonly MemoryRange[]): number {
    const pages: number[] = []
    const frames: number[] = []
    this.index.eachWithin(ranges, (entry, address) => {
      const frame = this.#frames[entry]! >>> 0
      if (frame === ABSENT || this.#pins.has(entry)) return
      if (frame === PARKED) return this.#forget(entry, address)
      this.#frames[entry] = ABSENT
      pages.push(address)
      frames.push(frame)
    })
    if (pages.length === 0) return 0
    this.#tell(rangesOf(pages), 'unmapped')
    this.#resident -= frames.length
    for (const frame of frames) this.leases.free(frame)
    return frames.length
  }

  park(address: number, filler: FrameFiller): 'done' | FrameRefusal {
    const entry = this.#entryOfRam(address)
    if (entry === undefined) return 'none'
    const page = gpa(address - (address & FRAME_MASK))
    const frame = this.#frames[entry]! >>> 0
    if (frame === PARKED) return 'parked'
    if (frame !== ABSENT) {
      const refusal = this.#held(entry, frame)
      if (refusal) return refusal
      this.#tellOf(page, 'unmapped')
      if (filler.keep?.(page, this.host.bytes.subarray(frame, frame + FRAME_SIZE)) === false) return 'declined'
      this.#resident--
    }
    this.#frames[entry] = PARKED
    this.#parked.set(entry, { filler, filling: undefined })
    if (frame !== ABSENT) this.leases.free(frame)
    return 'done'
  }

  expose(address: number): Hpa | FrameRefusal {
    const entry = this.#entryOfRam(address)
    const frame = entry === undefined ? ABSENT : this.#frames[entry]! >>> 0
    if (entry === undefined || frame === ABSENT) return 'none'
    if (frame === PARKED) return 'parked'
    const refusal = this.#held(entry, frame)
    if (refusal) return refusal
    this.host.shareFrame(hpa(frame))
    this.#tellOf(address, 'writeProtected')
    return hpa(frame)
  }

  share(address: number, frame: Hpa): 'done' | FrameRefusal {
    const entry = this.#entryOfRam(address)
    const own = entry === undefined ? ABSENT : this.#frames[entry]! >>> 0
    if (entry === undefined || own === ABSENT) return 'none'
    if (own === PARKED) return 'parked'
    const refusal = this.#held(entry, own)
    if (refusal) return refusal
    // Compare only after no translation allows a write.
    this.#tellOf(address, 'unmapped')
    if (!this.#isSame(own, frame)) return 'different'
    this.#frames[entry] = frame
    this.leases.free(own)
    return 'done'
  }

  replace(address: number, frame: Hpa): 'done' | FrameRefusal {
    const entry = this.#entryOfRam(address)
    if (entry === undefined) return 'none'
    const own = this.#frames[entry]! >>> 0
    if (own > PARKED) {
      const refusal = this.#held(entry, own)
      if (refusal) return refusal
      this.#tellOf(address, 'unmapped')
    } else {
      if (own === PARKED) this.#forget(entry, address)
      this.#resident++
    }
    this.#frames[entry] = frame
    if (this.dirty) this.dirty[entry] = 1
    if (own > PARKED) this.leases.free(own)
    return 'done'
  }

  pin(address: number): Hpa | 'wait' | undefined {
    const entry = this.#entryOfRam(address)
    if (entry === undefined) return undefined
    const at = this.translate(address, 'write')
    if (typeof at === 'number') this.#pins.set(entry, (this.#pins.get(entry) ?? 0) + 1)
    return at
  }

  unpin(address: number): boolean {
    const entry = this.#entryOfRam(address)
    const count = entry === undefined ? undefined : this.#pins.get(entry)
    if (entry === undefined || count === undefined) return false
    if (count > 1) this.#pins.set(entry, count - 1)
    else this.#pins.delete(entry)
    return true
  }

  #entryOfRam(address: number): number | undefined {
    const slot = this.index.find(address, 1)
    return slot?.ram ? this.index.entry(slot, address) : undefined
  }

  #held(entry: number, frame: number): FrameRefusal | undefined {
    if (this.#pins.has(entry)) return 'pinned'
    return this.leases.isLent(frame, FRAME_SIZE) ? 'lent' : undefined
  }

  #isSame(one: number, other: number): boolean {
    const { words } = this.host
    for (let word = 0; word < FRAME_SIZE / 4; word++)
      if (words[(one >>> 2) + word] !== words[(other >>> 2) + word]) return false
    return true
  }

  #tellOf(address: number, change: MemoryChange): void {
    this.#tell([{ address: gpa(address - (address & FRAME_MASK)), length: FRAME_SIZE }], change)
  }
  #tell(ranges: readonly MemoryRange[], change: MemoryChange): void {
    this.#paging?.onMemoryChange(ranges, change)
  }
  get #everything(): MemoryRange[] {
    return this.regions.map(({ start, length }) => ({ address: start, length }))
  }

  /** Frees all frames. The VM and its paging strategy have ended. */
  dispose(): void {
    this.#pins.clear()
    for (let entry = 0; entry < this.#frames.length; entry++) {
      const frame = this.#frames[entry]! >>> 0
      if (frame === PARKED) this.#forget(entry, this.index.addressOf(entry))
      else if (frame !== ABSENT) {
        this.#frames[entry] = ABSENT
        this.#resident--
        this.leases.free(frame)
      }
    }
  }

  // The dirty log

  setDirtyLog(on: boolean): void {
    this.dirty = on ? new Uint8Array(this.#frames.length) : undefined
    if (on) this.#tell(this.#everything, 'writeProtected')
  }

  takeDirty(): Gpa[] {
    const { dirty } = this
    if (!dirty) return []
    const pages: Gpa[] = []
    for (let entry = dirty.indexOf(1); entry >= 0; entry = dirty.indexOf(1, entry + 1))
      pages.push(this.index.addressOf(entry))
    dirty.fill(0)
    if (pages.length > 0) this.#tell(rangesOf(pages), 'writeProtected')
    return pages
  }

  // Snapshots

  *pages(): Iterable<MemoryPage> {
    const parkedPage = new Uint8Array(FRAME_SIZE)
    for (let entry = 0; entry < this.#frames.length; entry++) {
      const frame = this.#frames[entry]! >>> 0
      if (frame === ABSENT) continue
      const address = this.index.addressOf(entry)
      let bytes = this.host.bytes.subarray(frame, frame + FRAME_SIZE)
      if (frame === PARKED) {
        bytes = parkedPage
        this.#parked.get(entry)!.filler.fillNow(address, bytes)
      } else if (this.#isSame(frame, this.host.zeroFrame)) continue
      yield { address, bytes }
    }
  }

  load(pages: Iterable<MemoryPage>): void {
    this.#tell(this.#everything, 'unmapped')
    this.dispose()
    for (const { address, bytes } of pages) {
      const slot =
        address % FRAME_SIZE === 0 && bytes.length === FRAME_SIZE ? this.index.find(address, FRAME_SIZE) : undefined
      if (!slot) {
        throw new NonrootError({
          code: 'snapshot.mismatch',
          message: `this machine of ${this.size} bytes has no page at 0x${address.toString(16)} for ${bytes.length} bytes`,
          remedy: 'restore it into a machine of the same memory and firmware',
        })
      }
      const frame = this.#makePrivate(slot, address)
      if (frame === NO_FRAME)
        throw new NonrootError({ code: 'host.memory', message: this.#exhausted, thing: 'host.memory' })
      this.host.bytes.set(bytes, frame)
      this.host.noteWrite(hpa(frame), FRAME_SIZE)
    }
  }
}

const lost = (page: number, error: unknown): string =>
  `memory at 0x${page.toString(16)} cannot be brought back: ${error instanceof Error ? error.message : String(error)}`
