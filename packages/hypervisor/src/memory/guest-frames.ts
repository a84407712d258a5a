/** Accesses to the frames of one VM, and how a page loses its frame. How a page obtains one is in frame-table.ts. @hot */

import { FRAME_MASK, FRAME_SIZE, gpa, hpa, NonrootError } from '@nonroot/contracts'
import type {
  Access,
  FrameFiller,
  FrameRefusal,
  FrameState,
  FrameUsage,
  Gpa,
  GuestFrames,
  HostMemory,
  Hpa,
  MemoryPage,
  MemoryRange,
  MemoryRegion,
  PagingStrategy,
} from '@nonroot/contracts'
import { rangesOf, type FrameIndex, type Slot } from './frame-index.ts'
import { ABSENT, FrameTable, NO_FRAME, PARKED, type GuestMemoryOptions } from './frame-table.ts'
import type { LeaseBook } from './lease-book.ts'
import { PageFilling } from './page-filling.ts'

export class DemandGuestFrames implements GuestFrames {
  readonly size: number
  readonly regions: readonly MemoryRegion[]
  protected readonly host: HostMemory
  protected readonly index: FrameIndex
  protected readonly leases: LeaseBook
  /** One byte per frame: written since the dirty log was last taken. */
  protected dirty: Uint8Array | undefined
  readonly #table: FrameTable
  /** The table's `frames`. */
  readonly #frames: Int32Array
  readonly #filling: PageFilling

  constructor(options: GuestMemoryOptions) {
    const table = new FrameTable(options)
    this.#table = table
    this.#frames = table.frames
    this.#filling = new PageFilling(table)
    this.host = table.host
    this.index = table.index
    this.leases = table.leases
    this.regions = options.regions
    this.size = table.index.size
  }

  /** Sets the strategy that `onMemoryChange` notifies. Once, when the strategy exists. */
  setPaging(paging: Pick<PagingStrategy, 'onMemoryChange'>): void {
    this.#table.paging = paging
  }

  /** Pages of registers on the host's bus, by guest-physical page. */
  readonly #registers = new Map<number, number>()

  registerPage(address: number): number | undefined {
    return this.#registers.get(address - (address & FRAME_MASK))
  }

  mapRegisters(address: number, hostAddress: number, length: number): void {
    for (let at = 0; at < length; at += FRAME_SIZE) this.#registers.set(address + at, hostAddress + at)
  }

  unmapRegisters(address: number, length: number): void {
    for (let at = 0; at < length; at += FRAME_SIZE) this.#registers.delete(address + at)
    this.#table.notify([{ address: gpa(address), length }], 'unmapped')
  }

  get residentFrames(): number {
    return this.#table.resident
  }

  get pinnedFrames(): number {
    return this.#table.pins.size
  }

  usage(): FrameUsage {
    let sharedFrames = 0
    for (let entry = 0; entry < this.#frames.length; entry++) {
      const frame = this.#frames[entry]! >>> 0
      if (frame > PARKED && this.host.references(hpa(frame)) > 1) sharedFrames++
    }
    const { residentFrames, pinnedFrames } = this
    return { residentFrames, sharedFrames, parkedFrames: this.#table.parked.size, pinnedFrames }
  }

  // Accesses that cannot wait: they get a host address, or NO_FRAME after `onFailure`.

  /** The byte's host address, for reading. A page that was never written reads from the zero frame. */
  protected forRead(slot: Slot, address: number): number {
    const frame = this.#frames[this.index.entry(slot, address)]! >>> 0
    if (frame > PARKED) return frame + (address & FRAME_MASK)
    return frame === ABSENT
      ? this.host.zeroFrame + (address & FRAME_MASK)
      : this.#settle(this.#table.bringBack(slot, address), address)
  }

  /** The frame is there, private and marked dirty; the byte's host address. `whole`: the access writes every byte of the page. */
  protected forWrite(slot: Slot, address: number, whole = false): number {
    const entry = this.index.entry(slot, address)
    let frame = this.#frames[entry]! >>> 0
    if (frame <= PARKED || this.host.references(hpa(frame)) > 1) {
      if (frame === PARKED && whole) this.#table.forget(entry, address)
      frame = this.#table.makePrivate(slot, address)
      if (frame === NO_FRAME) return this.#settle(NO_FRAME, address)
    }
    if (this.dirty) this.dirty[entry] = 1
    return frame + (address & FRAME_MASK)
  }

  /** For a lease for reading: the page needs a frame of its own, as the guest may write it meanwhile. */
  protected forReadLease(slot: Slot, address: number): number {
    const frame = this.#frames[this.index.entry(slot, address)]! >>> 0
    return frame === ABSENT
      ? this.#settle(this.#table.makePrivate(slot, address), address)
      : this.forRead(slot, address)
  }

  protected holdsNothing(slot: Slot, address: number): boolean {
    return this.#frames[this.index.entry(slot, address)] === ABSENT
  }

  #settle(frame: number, address: number): number {
    if (frame !== NO_FRAME) return frame + (address & FRAME_MASK)
    this.#table.options.onFailure?.(this.#table.exhausted)
    return NO_FRAME
  }

  // For vCPUs

  translate(address: number, access: Access): Hpa | 'wait' | undefined {
    const slot = this.index.find(address, 1)
    if (!slot || (access === 'write' && !slot.ram)) return undefined
    const entry = this.index.entry(slot, address)
    let frame = this.#frames[entry]! >>> 0
    if (frame <= PARKED || (access === 'write' && this.host.references(hpa(frame)) > 1)) {
      if (frame === PARKED && mustWait(this.#table.parked.get(entry)!.filler, address)) return 'wait'
      if (this.#table.isShort()) return 'wait'
      frame = this.#table.makePrivate(slot, address)
      if (frame === NO_FRAME) return 'wait'
    }
    if (access === 'write' && this.dirty) this.dirty[entry] = 1
    return hpa(frame + (address & FRAME_MASK))
  }

  ready(address: number): Promise<string | undefined> {
    return this.#filling.ready(address)
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
      const { filler, filling } = this.#table.parked.get(entry)!
      return { kind: filling ? 'filling' : 'parked', filler }
    }
    return {
      kind: this.host.references(frame) > 1 ? 'shared' : 'private',
      frame,
      pins: this.#table.pins.get(entry) ?? 0,
    }
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
      if (frame === ABSENT || this.#table.pins.has(entry)) return
      if (frame === PARKED) return this.#table.forget(entry, address)
      this.#frames[entry] = ABSENT
      pages.push(address)
      frames.push(frame)
    })
    if (pages.length === 0) return 0
    this.#table.notify(rangesOf(pages), 'unmapped')
    this.#table.resident -= frames.length
    for (const frame of frames) this.leases.free(frame)
    return frames.length
  }

  park(address: number, filler: FrameFiller): 'done' | FrameRefusal {
    const entry = this.#table.entryOfRam(address)
    if (entry === undefined) return 'none'
    const page = gpa(address - (address & FRAME_MASK))
    const frame = this.#frames[entry]! >>> 0
    if (frame === PARKED) return 'parked'
    if (frame !== ABSENT) {
      const refusal = this.#table.held(entry, frame)
      if (refusal) return refusal
      this.#table.notifyOf(page, 'unmapped')
      if (filler.keep?.(page, this.host.bytes.subarray(frame, frame + FRAME_SIZE)) === false) return 'declined'
      this.#table.resident--
    }
    this.#frames[entry] = PARKED
    this.#table.parked.set(entry, { filler, filling: undefined })
    if (frame !== ABSENT) this.leases.free(frame)
    return 'done'
  }

  expose(address: number): Hpa | FrameRefusal {
    const entry = this.#table.entryOfRam(address)
    const frame = entry === undefined ? ABSENT : this.#frames[entry]! >>> 0
    if (entry === undefined || frame === ABSENT) return 'none'
    if (frame === PARKED) return 'parked'
    const refusal = this.#table.held(entry, frame)
    if (refusal) return refusal
    this.host.shareFrame(hpa(frame))
    this.#table.notifyOf(address, 'writeProtected')
    return hpa(frame)
  }

  share(address: number, frame: Hpa): 'done' | FrameRefusal {
    const entry = this.#table.entryOfRam(address)
    const own = entry === undefined ? ABSENT : this.#frames[entry]! >>> 0
    if (entry === undefined || own === ABSENT) return 'none'
    if (own === PARKED) return 'parked'
    const refusal = this.#table.held(entry, own)
    if (refusal) return refusal
    // Compare only after no translation allows a write.
    this.#table.notifyOf(address, 'unmapped')
    if (!this.#table.isSame(own, frame)) return 'different'
    this.#frames[entry] = frame
    this.leases.free(own)
    return 'done'
  }

  replace(address: number, frame: Hpa): 'done' | FrameRefusal {
    const entry = this.#table.entryOfRam(address)
    if (entry === undefined) return 'none'
    const own = this.#frames[entry]! >>> 0
    if (own > PARKED) {
      const refusal = this.#table.held(entry, own)
      if (refusal) return refusal
      this.#table.notifyOf(address, 'unmapped')
    } else {
      if (own === PARKED) this.#table.forget(entry, address)
      this.#table.resident++
    }
    this.#frames[entry] = frame
    if (this.dirty) this.dirty[entry] = 1
    if (own > PARKED) this.leases.free(own)
    return 'done'
  }

  pin(address: number): Hpa | 'wait' | undefined {
    const entry = this.#table.entryOfRam(address)
    if (entry === undefined) return undefined
    const at = this.translate(address, 'write')
    if (typeof at === 'number') this.#table.pins.set(entry, (this.#table.pins.get(entry) ?? 0) + 1)
    return at
  }

  unpin(address: number): boolean {
    const entry = this.#table.entryOfRam(address)
    const count = entry === undefined ? undefined : this.#table.pins.get(entry)
    if (entry === undefined || count === undefined) return false
    if (count > 1) this.#table.pins.set(entry, count - 1)
    else this.#table.pins.delete(entry)
    return true
  }

  addPage(address: number): boolean {
    return this.index.add(address)
  }

  removePage(address: number): boolean {
    const slot = this.index.find(address, 1)
    if (!slot || !this.index.isAdded(slot) || this.#table.pins.has(slot.first)) return false
    this.release([{ address: gpa(slot.start), length: FRAME_SIZE }])
    this.index.remove(slot)
    return true
  }

  get #everything(): MemoryRange[] {
    return this.regions.map(({ start, length }) => ({ address: start, length }))
  }

  /** Frees all frames. The VM and its paging strategy have ended. */
  dispose(): void {
    this.#table.clear()
  }

  // The dirty log

  setDirtyLog(on: boolean): void {
    this.dirty = on ? new Uint8Array(this.#frames.length) : undefined
    if (on) this.#table.notify(this.#everything, 'writeProtected')
  }

  takeDirty(): Gpa[] {
    const { dirty } = this
    if (!dirty) return []
    const pages: Gpa[] = []
    for (let entry = dirty.indexOf(1); entry >= 0; entry = dirty.indexOf(1, entry + 1))
      pages.push(this.index.addressOf(entry))
    dirty.fill(0)
    if (pages.length > 0) this.#table.notify(rangesOf(pages), 'writeProtected')
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
        this.#table.parked.get(entry)!.filler.fillNow(address, bytes)
      } else if (this.#table.isSame(frame, this.host.zeroFrame)) continue
      yield { address, bytes }
    }
  }

  load(pages: Iterable<MemoryPage>): void {
    this.#table.notify(this.#everything, 'unmapped')
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
      const frame = this.#table.makePrivate(slot, address)
      if (frame === NO_FRAME)
        throw new NonrootError({ code: 'host.memory', message: this.#table.exhausted, thing: 'host.memory' })
      this.host.bytes.set(bytes, frame)
      this.host.noteWrite(hpa(frame), FRAME_SIZE)
    }
  }
}

const mustWait = (filler: FrameFiller, address: number): boolean =>
  filler.fill !== undefined && filler.isNear?.(gpa(address - (address & FRAME_MASK))) !== true
