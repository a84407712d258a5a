/**
 * Swapping: pages that are idle are compressed into frames of the host, or written to a file if they do not compress or there are enough of these frames.
 * Their guest is not asked and cannot refuse, so this is what is left when the other techniques give too little.
 */

import { FRAME_SIZE, hpa } from '@nonroot/contracts'
import type {
  Counter,
  FrameFiller,
  Gauge,
  Gpa,
  HostMemory,
  Metrics,
  ReclaimPressure,
  SwapBackend,
  SwapFile,
} from '@nonroot/contracts'
import { isSame } from '../share/hash.ts'
import { mib } from '../member.ts'
import type { Member } from '../member.ts'
import type { Taken, Technique } from '../technique.ts'
import { IdlePages } from './idle-pages.ts'
import { PackedFrames } from './packed-frames.ts'
import { Slots } from './slots.ts'

export interface SwapOptions {
  /** Part of host memory that compressed pages may fill. */
  readonly compressed: number
  /** Pages that are as they were read from a disk image are not kept. */
  readonly dropUnchanged: boolean
  /** Pages per second and VM whose accessed marks are read while memory is short. */
  readonly pagesPerSecond: number
}

/** Pages that are swapped out before others run. */
const SLICE = 64
/** A page that comes back sooner was the wrong one. Milliseconds. */
const REFAULT_MS = 1000
/** Accessed marks are read while less than this part of the host is free. */
const WATCHED_PART = 0.12

interface Swapped {
  readonly member: Member
  readonly idle: IdlePages
  /** Where each page is: 0 nowhere, above 0 a cell of `PackedFrames`, below 0 a slot of the file, as `~slot`. */
  readonly places: Int32Array
  /** When a page went, in tenths of a second since the start, modulo 2^16. */
  readonly times: Uint16Array
  readonly onDisk: FrameFiller | undefined
  readonly packed: FrameFiller
  readonly filed: FrameFiller | undefined
  packedPages: number
  filedPages: number
  droppedPages: number
}

export class Swapping implements Technique {
  readonly name = 'swap'
  readonly #host: HostMemory
  readonly #backend: SwapBackend
  readonly #options: SwapOptions
  readonly #store: PackedFrames
  readonly #slots: Slots | undefined
  readonly #swapped = new Map<Member, Swapped>()
  /** Why the file takes no more pages. */
  #fileFailure: string | undefined
  readonly #metrics: ReturnType<typeof metricsOf>

  constructor(host: HostMemory, backend: SwapBackend, metrics: Metrics, options: SwapOptions) {
    this.#host = host
    this.#backend = backend
    this.#options = options
    this.#store = new PackedFrames(host)
    this.#slots = backend.file && new Slots(backend.file.pages)
    this.#metrics = metricsOf(metrics.scope('swap'))
  }

  add(member: Member): void {
    const places = new Int32Array(member.pages.count)
    const swapped: Swapped = {
      member,
      idle: new IdlePages(member),
      places,
      times: new Uint16Array(member.pages.count),
      onDisk: this.#options.dropUnchanged ? this.#diskFiller(member) : undefined,
      packed: this.#packedFiller(member),
      filed: this.#backend.file && this.#fileFiller(member, this.#backend.file),
      packedPages: 0,
      filedPages: 0,
      droppedPages: 0,
    }
    this.#swapped.set(member, swapped)
  }

  remove(member: Member): void {
    // The kernel drops what is parked when it frees the VM's memory; until then the fillers have the content.
    if (this.#swapped.get(member)) this.#leaving.set(member, this.#swapped.get(member)!)
    this.#swapped.delete(member)
  }
  readonly #leaving = new WeakMap<Member, Swapped>()
  #of(member: Member): Swapped {
    return (this.#swapped.get(member) ?? this.#leaving.get(member))!
  }

  dispose(): void {
    this.#store.dispose()
    this.#backend.close()
  }

  sample({ freeFrames, totalFrames }: ReclaimPressure, sinceMs: number): void {
    if (freeFrames > totalFrames * WATCHED_PART) return
    const pages = Math.ceil((this.#options.pagesPerSecond * sinceMs) / 1000)
    for (const { idle } of this.#swapped.values()) {
      idle.advance(pages)
      idle.restart()
    }
  }

  async take(member: Member, wanted: number): Promise<Taken> {
    const swapped = this.#swapped.get(member)
    if (!swapped) return { frames: 0 }
    // Counted page by page: other VMs give at the same time.
    let [frames, parked, sinceBreak] = [0, 0, 0]
    for (const address of swapped.idle.victims()) {
      // A frame for compressed pages is needed before one comes back.
      if (frames >= wanted || parked >= 4 * wanted + SLICE || member.spareFrames === 0) break
      const stores = this.#store.frames
      if (this.#park(swapped, address)) {
        parked++
        frames += 1 - (this.#store.frames - stores)
      }
      if (++sinceBreak < SLICE) continue
      sinceBreak = 0
      await new Promise((resolve) => void setTimeout(resolve, 0))
      if (!this.#swapped.has(member)) break
    }
    this.#metrics.store.value = this.#store.frames
    if (frames >= wanted) return { frames }
    return { frames: Math.max(0, frames), reason: this.#reason(member, frames, wanted) }
  }

  #reason(member: Member, frames: number, wanted: number): string {
    if (member.spareFrames === 0) return `${member.name} is at its minimum of ${mib(member.subject.minimumFrames)}`
    const why = this.#fileFailure ?? (this.#slots ? 'the swap file is full' : 'there is no swap file')
    return `swapping took ${frames} of ${wanted} frames from ${member.name}; ${why}`
  }

  #park(swapped: Swapped, address: Gpa): boolean {
    const { frames } = swapped.member
    const frame = frames.peek(address)!
    // A frame that others use too does not become free.
    if (this.#host.references(frame) > 1) return false
    const began = performance.now()
    const isGone = this.#isZero(frame) ? this.#releaseZeros(swapped, address) : this.#parkContent(swapped, address)
    this.#metrics.costNs.value += Math.floor((performance.now() - began) * 1e6)
    if (isGone) swapped.times[swapped.member.pages.pageOf(address)] = tenths()
    return isGone
  }

  #isZero(frame: number): boolean {
    return isSame(this.#host.words, hpa(frame), this.#host.zeroFrame)
  }

  /** A page of zeros is not kept: a page without a frame reads as zeros. */
  #releaseZeros({ member }: Swapped, address: Gpa): boolean {
    const exposed = member.frames.expose(address)
    if (typeof exposed !== 'number') return false
    const released = member.frames.release([{ address, length: FRAME_SIZE }])
    this.#host.freeFrame(exposed)
    this.#metrics.zeros.value += released
    return released > 0
  }

  #parkContent({ member, onDisk, packed, filed }: Swapped, address: Gpa): boolean {
    const frame = member.frames.peek(address)!
    const isOnDisk = onDisk !== undefined && member.subject.onDisk!.mayKeep(frame)
    for (const filler of [isOnDisk ? onDisk : undefined, packed, filed]) {
      const result = filler ? member.frames.park(address, filler) : 'declined'
      if (result !== 'declined') return result === 'done'
    }
    return false
  }

  // On a disk of the guest's: nothing is written.

  #diskFiller(member: Member): FrameFiller | undefined {
    const { onDisk } = member.subject
    if (!onDisk) return undefined
    return {
      keep: (address, content) => {
        if (onDisk.keep(address, content) === false) return false
        this.#of(member).droppedPages++
        this.#metrics.dropped.value++
        return true
      },
      fillNow: (address, into) => {
        onDisk.fillNow(address, into)
        this.#count(this.#of(member), member.pages.pageOf(address))
      },
      isNear: (address) => onDisk.isNear(address),
      fill: async (address) => {
        const content = await this.#timed(onDisk.fill(address))
        this.#count(this.#of(member), member.pages.pageOf(address))
        return content
      },
      drop: (address) => {
        onDisk.drop(address)
        this.#of(member).droppedPages--
      },
    }
  }

  // Compressed in memory: fast enough for a vCPU to wait for.

  #packedFiller(member: Member): FrameFiller {
    const { compressed } = this.#options
    return {
      keep: (address, content) => {
        if (this.#store.frames >= this.#host.guestFrames * compressed) return false
        const cell = this.#store.put(this.#backend.compress(content))
        if (cell === undefined) return false
        const swapped = this.#of(member)
        swapped.places[member.pages.pageOf(address)] = cell
        swapped.packedPages++
        this.#metrics.compressed.value++
        return true
      },
      fillNow: (address, into) => {
        const swapped = this.#of(member)
        const page = member.pages.pageOf(address)
        this.#backend.expand(this.#store.get(swapped.places[page]!), into)
        this.#count(swapped, page)
      },
      drop: (address) => {
        const swapped = this.#of(member)
        const page = member.pages.pageOf(address)
        this.#store.free(swapped.places[page]!)
        swapped.places[page] = 0
        swapped.packedPages--
      },
    }
  }

  // In the file: the vCPU waits, others run.

  #fileFiller(member: Member, file: SwapFile): FrameFiller {
    return {
      keep: (address, content) => {
        const slot = this.#fileFailure === undefined ? this.#slots!.take() : -1
        if (slot < 0) return false
        try {
          file.write(slot, content)
        } catch (error) {
          this.#slots!.free(slot)
          // What is in it can still be read.
          this.#fileFailure = `the swap file takes no more: ${(error as Error).message}`
          return false
        }
        const swapped = this.#of(member)
        swapped.places[member.pages.pageOf(address)] = ~slot
        swapped.filedPages++
        this.#metrics.written.value++
        return true
      },
      fillNow: (address, into) => {
        const swapped = this.#of(member)
        const page = member.pages.pageOf(address)
        file.readNow(~swapped.places[page]!, into)
        this.#count(swapped, page)
      },
      isNear: (address) => {
        const swapped = this.#of(member)
        return file.isNear?.(~swapped.places[member.pages.pageOf(address)]!) ?? false
      },
      fill: async (address) => {
        const swapped = this.#of(member)
        const page = member.pages.pageOf(address)
        const content = await this.#timed(file.read(~swapped.places[page]!))
        this.#count(swapped, page)
        return content
      },
      drop: (address) => {
        const swapped = this.#of(member)
        const page = member.pages.pageOf(address)
        this.#slots!.free(~swapped.places[page]!)
        swapped.places[page] = 0
        swapped.filedPages--
      },
    }
  }

  /** A vCPU waits. */
  async #timed(read: Promise<Uint8Array>): Promise<Uint8Array> {
    const began = performance.now()
    const content = await read
    this.#metrics.stalls.value++
    this.#metrics.stallNs.observe(Math.floor((performance.now() - began) * 1e6))
    return content
  }

  #count(swapped: Swapped, page: number): void {
    this.#metrics.faults.value++
    swapped.member.returnedPages++
    if (((tenths() - swapped.times[page]!) & 0xffff) * 100 <= REFAULT_MS) this.#metrics.refaults.value++
    swapped.idle.touched(page)
  }

  /** Compressed pages are charged with the frames that hold them. */
  heldFrames(member: Member): number {
    const swapped = this.#swapped.get(member)
    if (!swapped) return 0
    let all = 0
    for (const { packedPages } of this.#swapped.values()) all += packedPages
    const charged = all === 0 ? 0 : (this.#store.frames * swapped.packedPages) / all
    return Math.round(swapped.packedPages + swapped.filedPages + swapped.droppedPages - charged)
  }
}

const tenths = (): number => Math.floor(performance.now() / 100) & 0xffff

function metricsOf(own: Metrics): {
  readonly [K in 'compressed' | 'written' | 'dropped' | 'zeros' | 'faults' | 'refaults' | 'stalls' | 'costNs']: Counter
} & { readonly stallNs: ReturnType<Metrics['histogram']>; readonly store: Gauge } {
  return {
    compressed: own.counter('compressed', 'pages that were compressed', 'frames'),
    written: own.counter('written', 'pages that were written to the swap file', 'frames'),
    dropped: own.counter('dropped', 'pages that were as on a disk of the guest, and were not kept', 'frames'),
    zeros: own.counter('zeros', 'pages of zeros that were released', 'frames'),
    faults: own.counter('faults', 'pages that were needed again'),
    refaults: own.counter('refaults', 'of these, the ones needed within a second'),
    stalls: own.counter('stalls', 'times that a vCPU waited for the swap file or a disk'),
    stallNs: own.histogram('stallNs', 'how long it waited', 'ns'),
    costNs: own.counter('costNs', 'processor time of swapping out', 'ns'),
    store: own.gauge('store', 'frames that hold compressed pages', 'frames'),
  }
}
