/** One VM's physical memory: regions of frames that come into being when touched. Knows no page table and no CPU mode. @hot */

import { FRAME_MASK, FRAME_SIZE, gpa, hpa, invariant, NonrootError } from '@nonroot/contracts'
import { LeaseBook } from './lease-book.ts'
import type {
  Access,
  Gpa,
  GuestMemory,
  HostMemory,
  Hpa,
  MemoryLease,
  MemoryPiece,
  MemoryRegion,
  PagingStrategy,
  Snapshot,
} from '@nonroot/contracts'

/** Frames in a run that a paging strategy can map by one large entry (2 MiB). */
const RUN = 512
const RUN_SIZE = RUN * FRAME_SIZE
/** Whole runs are taken only while at least this part of the host is free: overcommit goes frame by frame. */
const PLENTY = 1 / 8

/** A region with where its frames start in the frame table. */
interface Slot {
  readonly start: number
  readonly end: number
  readonly ram: boolean
  readonly first: number
}

export interface GuestMemoryOptions {
  readonly hostMemory: HostMemory
  readonly regions: readonly MemoryRegion[]
  /** Take 2 MiB at once where the host has plenty. Default true. */
  readonly largeRuns?: boolean
}

/** Throws `host.memory` out of an access when the host has no frame left: the kernel ends the VM with it. */
export class DemandGuestMemory implements GuestMemory {
  readonly size: number
  readonly regions: readonly MemoryRegion[]
  readonly #host: HostMemory
  readonly #bytes: Uint8Array
  readonly #view: DataView
  readonly #slots: readonly Slot[]
  /** Host address of each frame as a signed word, 0 for none. */
  readonly #frames: Int32Array
  /** One byte a frame: written since the dirty log was last taken. */
  #dirty: Uint8Array | undefined
  #resident = 0
  #largeRuns: boolean
  #last: Slot
  readonly #leases: LeaseBook
  #paging: Pick<PagingStrategy, 'onMemoryChange'> | undefined

  constructor({ hostMemory, regions, largeRuns = true }: GuestMemoryOptions) {
    this.#host = hostMemory
    this.#leases = new LeaseBook((frame) => hostMemory.freeFrame(hpa(frame)))
    this.#bytes = hostMemory.bytes
    this.#view = hostMemory.view
    this.regions = regions
    let first = 0
    this.#slots = regions.map(({ start, length, kind }) => {
      invariant(length > 0 && length % FRAME_SIZE === 0 && start % FRAME_SIZE === 0, 'a region is whole frames')
      const slot = { start, end: start + length, ram: kind === 'ram', first }
      first += length / FRAME_SIZE
      return slot
    })
    this.size = regions.reduce((sum, { kind, length }) => sum + (kind === 'ram' ? length : 0), 0)
    this.#frames = new Int32Array(first)
    this.#last = this.#slots[0]!
    this.#largeRuns = largeRuns
  }

  /** Who hears of frames taken away and write protection. Once, when the strategy exists. */
  setPaging(paging: Pick<PagingStrategy, 'onMemoryChange'>): void {
    this.#paging = paging
  }

  get residentFrames(): number {
    return this.#resident
  }

  isRam(address: number, length: number): boolean {
    return this.#slot(address, length)?.ram === true
  }

  /** The region that holds all of the range. False comparisons turn away NaN; the rest of what is hostile fails `isInteger`. */
  #slot(address: number, length: number): Slot | undefined {
    if (!Number.isInteger(address) || !Number.isInteger(length) || length < 0) return undefined
    const end = address + length
    const last = this.#last
    if (address >= last.start && end <= last.end) return last
    for (const slot of this.#slots) {
      if (address >= slot.start && end <= slot.end) return (this.#last = slot)
    }
    return undefined
  }

  // Values: one frame is the usual case, what crosses frames goes byte by byte.

  readU8(address: number): number | undefined {
    const slot = this.#slot(address, 1)
    return slot && this.#bytes[this.#forRead(slot, address)]
  }

  readU16(address: number): number | undefined {
    const slot = this.#slot(address, 2)
    if (!slot) return undefined
    if ((address & FRAME_MASK) <= FRAME_SIZE - 2) return this.#view.getUint16(this.#forRead(slot, address), true)
    return this.readU8(address)! | (this.readU8(address + 1)! << 8)
  }

  readU32(address: number): number | undefined {
    const slot = this.#slot(address, 4)
    if (!slot) return undefined
    if ((address & FRAME_MASK) <= FRAME_SIZE - 4) return this.#view.getUint32(this.#forRead(slot, address), true)
    return (this.readU16(address)! | (this.readU16(address + 2)! << 16)) >>> 0
  }

  readU64(address: number): bigint | undefined {
    const slot = this.#slot(address, 8)
    if (!slot) return undefined
    if ((address & FRAME_MASK) <= FRAME_SIZE - 8) return this.#view.getBigUint64(this.#forRead(slot, address), true)
    return BigInt(this.readU32(address)!) | (BigInt(this.readU32(address + 4)!) << 32n)
  }

  readBytes(address: number, into: Uint8Array): boolean {
    const { length } = into
    const slot = this.#slot(address, length)
    if (!slot) return false
    for (let done = 0; done < length;) {
      const piece = Math.min(FRAME_SIZE - ((address + done) & FRAME_MASK), length - done)
      const at = this.#forRead(slot, address + done)
      into.set(this.#bytes.subarray(at, at + piece), done)
      done += piece
    }
    return true
  }

  writeU8(address: number, value: number): boolean {
    const at = this.#forWrite(address, 1)
    if (at < 0) return false
    this.#bytes[at] = value
    this.#host.noteWrite(hpa(at), 1)
    return true
  }

  writeU16(address: number, value: number): boolean {
    if ((address & FRAME_MASK) > FRAME_SIZE - 2)
      return this.isRam(address, 2) && this.writeU8(address, value) && this.writeU8(address + 1, value >> 8)
    const at = this.#forWrite(address, 2)
    if (at < 0) return false
    this.#view.setUint16(at, value, true)
    this.#host.noteWrite(hpa(at), 2)
    return true
  }

  writeU32(address: number, value: number): boolean {
    if ((address & FRAME_MASK) > FRAME_SIZE - 4)
      return this.isRam(address, 4) && this.writeU16(address, value) && this.writeU16(address + 2, value >> 16)
    const at = this.#forWrite(address, 4)
    if (at < 0) return false
    this.#view.setUint32(at, value, true)
    this.#host.noteWrite(hpa(at), 4)
    return true
  }

  writeU64(address: number, value: bigint): boolean {
    if ((address & FRAME_MASK) > FRAME_SIZE - 8)
      return (
        this.isRam(address, 8) &&
        this.writeU32(address, Number(value & 0xffff_ffffn)) &&
        this.writeU32(address + 4, Number((value >> 32n) & 0xffff_ffffn))
      )
    const at = this.#forWrite(address, 8)
    if (at < 0) return false
    this.#view.setBigUint64(at, value, true)
    this.#host.noteWrite(hpa(at), 8)
    return true
  }

  writeBytes(address: number, from: Uint8Array): boolean {
    const slot = this.#slot(address, from.length)
    if (!slot?.ram) return false
    this.#put(slot, address, from)
    return true
  }

  writeRom(address: number, from: Uint8Array): boolean {
    const slot = this.#slot(address, from.length)
    if (!slot) return false
    this.#put(slot, address, from)
    return true
  }

  #put(slot: Slot, address: number, from: Uint8Array): void {
    const { length } = from
    for (let done = 0; done < length;) {
      const at = this.#makeWritable(slot, address + done)
      let end = done + FRAME_SIZE - ((address + done) & FRAME_MASK)
      // Frames that lie alike in host memory, as those of a large run do, are written at once.
      while (end < length && this.#makeWritable(slot, address + end) === at + end - done) end += FRAME_SIZE
      if (end > length) end = length
      this.#bytes.set(done === 0 && end === length ? from : from.subarray(done, end), at)
      this.#host.noteWrite(hpa(at), end - done)
      done = end
    }
  }

  fill(address: number, length: number, value: number): boolean {
    const slot = this.#slot(address, length)
    if (!slot?.ram) return false
    for (let done = 0; done < length;) {
      const piece = Math.min(FRAME_SIZE - ((address + done) & FRAME_MASK), length - done)
      // What was never touched is zero already.
      if ((value & 0xff) !== 0 || this.#frames[this.#index(slot, address + done)] !== 0) {
        const at = this.#makeWritable(slot, address + done)
        this.#bytes.fill(value, at, at + piece)
        this.#host.noteWrite(hpa(at), piece)
      }
      done += piece
    }
    return true
  }

  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    const write = access === 'write'
    for (const { address, length } of pieces) if (!this.isRam(address, length)) return undefined
    const starts: number[] = []
    const ends: number[] = []
    let last = -1
    for (const { address, length } of pieces) {
      const slot = this.#slot(address, length)!
      for (let done = 0; done < length;) {
        const size = Math.min(FRAME_SIZE - ((address + done) & FRAME_MASK), length - done)
        const at = write ? this.#makeWritable(slot, address + done) : this.#forRead(slot, address + done)
        if (last >= 0 && ends[last] === at) ends[last] = at + size
        else last = starts.push(at) && ends.push(at + size) - 1
        done += size
      }
    }
    const views = starts.map((start, index) => this.#bytes.subarray(start, ends[index]))
    const era = this.#leases.begin()
    return {
      views,
      end: () => {
        if (write) {
          starts.forEach((start, index) => this.#host.noteWrite(hpa(start), ends[index]! - start))
          if (this.#dirty) this.#markDirty(pieces)
        }
        this.#leases.end(era)
      },
    }
  }

  #markDirty(pieces: readonly MemoryPiece[]): void {
    for (const { address, length } of pieces) {
      const slot = this.#slot(address, length)!
      const end = this.#index(slot, address + length - 1)
      for (let index = this.#index(slot, address); index <= end; index++) this.#dirty![index] = 1
    }
  }

  // Frames

  #index(slot: Slot, address: number): number {
    return slot.first + Math.floor((address - slot.start) / FRAME_SIZE)
  }

  #forRead(slot: Slot, address: number): number {
    const frame = this.#frames[this.#index(slot, address)]! >>> 0
    return (frame !== 0 ? frame : this.#bring(slot, address)) + (address & FRAME_MASK)
  }

  /** Host address for writing RAM inside one frame, or -1. */
  #forWrite(address: number, length: number): number {
    const slot = this.#slot(address, length)
    return slot?.ram ? this.#makeWritable(slot, address) : -1
  }

  /** The frame is there, private and marked dirty; the byte's host address. */
  #makeWritable(slot: Slot, address: number): number {
    const index = this.#index(slot, address)
    let frame = this.#frames[index]! >>> 0
    if (frame === 0) frame = this.#bring(slot, address)
    else if (this.#host.references(hpa(frame)) > 1) frame = this.#copy(index, frame, address)
    if (this.#dirty) this.#dirty[index] = 1
    return frame + (address & FRAME_MASK)
  }

  #bring(slot: Slot, address: number): number {
    const index = this.#index(slot, address)
    if (this.#largeRuns && slot.ram && this.#bringRun(slot, address)) return this.#frames[index]! >>> 0
    const frame = this.#allocate()
    this.#frames[index] = frame
    this.#resident++
    return frame
  }

  #allocate(): Hpa {
    const frame = this.#host.allocateFrame()
    if (frame !== undefined) return frame
    throw new NonrootError({
      code: 'host.memory',
      message: `host memory is exhausted: all ${this.#host.totalFrames} frames are in use`,
      thing: 'host.memory',
      remedy: 'make host.memory larger or machine.memory smaller',
    })
  }

  /** The whole 2 MiB around an address, lying alike in host memory, so that one large entry can map it. */
  #bringRun(slot: Slot, address: number): boolean {
    const start = address - (address % RUN_SIZE)
    if (start < slot.start || start + RUN_SIZE > slot.end) return false
    const first = this.#index(slot, start)
    for (let index = first; index < first + RUN; index++) if (this.#frames[index] !== 0) return false
    if (this.#host.freeFrames - RUN < this.#host.totalFrames * PLENTY) return false
    const run = this.#host.allocateFrames(RUN, RUN)
    if (run === undefined) {
      // Fragmented: looking again each time would cost more than it brings.
      this.#largeRuns = false
      return false
    }
    for (let offset = 0; offset < RUN; offset++) this.#frames[first + offset] = run + offset * FRAME_SIZE
    this.#resident += RUN
    return true
  }

  #copy(index: number, shared: number, address: number): number {
    const copy = this.#allocate()
    this.#bytes.copyWithin(copy, shared, shared + FRAME_SIZE)
    this.#frames[index] = copy
    this.#paging?.onMemoryChange(gpa(address - (address & FRAME_MASK)), FRAME_SIZE, 'unmapped')
    this.#leases.free(shared)
    return copy
  }

  translate(address: number, access: Access): Hpa | undefined {
    const slot = this.#slot(address, 1)
    if (!slot) return undefined
    if (access !== 'write') return hpa(this.#forRead(slot, address))
    return slot.ram ? hpa(this.#makeWritable(slot, address)) : undefined
  }

  peek(address: number): Hpa | undefined {
    const slot = this.#slot(address, 1)
    if (!slot) return undefined
    const frame = this.#frames[this.#index(slot, address)]! >>> 0
    return frame === 0 ? undefined : hpa(frame + (address & FRAME_MASK))
  }

  isWritable(address: number): boolean {
    const slot = this.#slot(address, 1)
    if (!slot?.ram) return false
    const index = this.#index(slot, address)
    const frame = this.#frames[index]! >>> 0
    if (frame === 0 || this.#host.references(hpa(frame)) > 1) return false
    return this.#dirty === undefined || this.#dirty[index] === 1
  }

  release(address: number): boolean {
    const slot = this.#slot(address, 1)
    if (!slot?.ram) return false
    const index = this.#index(slot, address)
    const frame = this.#frames[index]! >>> 0
    if (frame === 0) return false
    this.#paging?.onMemoryChange(gpa(address - (address & FRAME_MASK)), FRAME_SIZE, 'unmapped')
    this.#drop(index)
    return true
  }

  #drop(index: number): void {
    const frame = this.#frames[index]! >>> 0
    this.#frames[index] = 0
    this.#resident--
    this.#leases.free(frame)
  }

  /** Gives all frames back: the VM is gone, and its paging strategy with it. */
  dispose(): void {
    for (let index = 0; index < this.#frames.length; index++) if (this.#frames[index] !== 0) this.#drop(index)
  }

  // The dirty log

  setDirtyLog(on: boolean): void {
    this.#dirty = on ? new Uint8Array(this.#frames.length) : undefined
    if (on) for (const { start, length } of this.regions) this.#paging?.onMemoryChange(start, length, 'writeProtected')
  }

  takeDirty(): Gpa[] {
    const dirty = this.#dirty
    if (!dirty) return []
    const pages: Gpa[] = []
    for (const slot of this.#slots) {
      const end = slot.first + (slot.end - slot.start) / FRAME_SIZE
      for (let index = slot.first; index < end; index++) {
        if (dirty[index] === 1) pages.push(gpa(slot.start + (index - slot.first) * FRAME_SIZE))
      }
    }
    dirty.fill(0)
    for (const page of pages) this.#paging?.onMemoryChange(page, FRAME_SIZE, 'writeProtected')
    return pages
  }

  /** Frames by table index and content, zero frames left out. */
  save(): Snapshot {
    const frames: [number, Uint8Array][] = []
    for (let index = 0; index < this.#frames.length; index++) {
      const frame = this.#frames[index]! >>> 0
      if (frame === 0 || this.#isZero(frame)) continue
      frames.push([index, this.#bytes.slice(frame, frame + FRAME_SIZE)])
    }
    return { type: 'guest-memory', version: 1, data: { size: this.size, frames } }
  }

  restore(snapshot: Snapshot): void {
    const { type, version, data } = snapshot
    if (type !== 'guest-memory' || version !== 1 || data['size'] !== this.size) {
      throw new NonrootError({
        code: 'snapshot.mismatch',
        message: `this guest memory of ${this.size} bytes cannot take ${type} version ${version} of ${String(data['size'])} bytes`,
      })
    }
    for (const { start, length } of this.regions) this.#paging?.onMemoryChange(start, length, 'unmapped')
    this.dispose()
    for (const [index, content] of data['frames'] as [number, Uint8Array][]) {
      const frame = this.#allocate()
      this.#bytes.set(content, frame)
      this.#host.noteWrite(frame, FRAME_SIZE)
      this.#frames[index] = frame
      this.#resident++
    }
  }

  #isZero(frame: number): boolean {
    const { words } = this.#host
    const end = (frame + FRAME_SIZE) >>> 2
    for (let word = frame >>> 2; word < end; word++) if (words[word] !== 0) return false
    return true
  }
}
