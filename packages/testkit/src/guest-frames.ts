/** The frames of a guest for tests: every rule of the contract, none of the speed. The kernel's own are in @nonroot/hypervisor. */

import { FRAME_MASK, FRAME_SIZE, gpa, hpa, NonrootError } from '@nonroot/contracts'
import type {
  FrameFiller,
  FrameRefusal,
  FrameState,
  FrameUsage,
  Gpa,
  GuestFrames,
  HostMemory,
  Hpa,
  MemoryChange,
  MemoryPage,
  MemoryRegion,
  PagingStrategy,
} from '@nonroot/contracts'

export interface TestGuestMemoryOptions {
  readonly hostMemory: HostMemory
  /** Bytes of RAM at 0, or regions. */
  readonly ram: number | readonly MemoryRegion[]
  /** Is notified of frames taken away and of write protection. May be set later. */
  paging?: Pick<PagingStrategy, 'onMemoryChange'>
  /** A vCPU waits for a frame. Default: there is none. */
  readonly onShortage?: () => Promise<string | undefined>
  /** An access that cannot wait found no frame, or a filler failed. */
  readonly onFailure?: (message: string) => void
}

interface Parked {
  readonly filler: FrameFiller
  filling: Promise<string | undefined> | undefined
}

const pageOf = (address: number): Gpa => gpa(address - (address % FRAME_SIZE))
const EXHAUSTED = 'test host memory is exhausted'

/** Pages by their start: what they have. */
export class TestFrames implements GuestFrames {
  readonly size: number
  readonly regions: readonly MemoryRegion[]
  readonly dirty = new Set<Gpa>()
  readonly #options: TestGuestMemoryOptions
  readonly #host: HostMemory
  readonly #frames = new Map<Gpa, Hpa>()
  readonly #parked = new Map<Gpa, Parked>()
  readonly #pins = new Map<Gpa, number>()
  readonly #added: MemoryRegion[] = []
  /** Leases of each frame; those that were dropped meanwhile go when the last ends. */
  readonly #leases = new Map<Hpa, number>()
  readonly #dropped: Hpa[] = []
  #logging = false

  constructor(options: TestGuestMemoryOptions) {
    this.#options = options
    this.#host = options.hostMemory
    this.regions = typeof options.ram === 'number' ? [{ start: gpa(0), length: options.ram, kind: 'ram' }] : options.ram
    this.size = this.regions.reduce((sum, region) => sum + (region.kind === 'rom' ? 0 : region.length), 0)
  }

  regionOf(address: number, length: number): MemoryRegion | undefined {
    return Number.isInteger(address) && Number.isInteger(length) && address >= 0 && length >= 0
      ? [...this.regions, ...this.#added].find(
          (region) => address >= region.start && address + length <= region.start + region.length,
        )
      : undefined
  }
  isRam(address: number, length: number): boolean {
    return (this.regionOf(address, length)?.kind ?? 'rom') !== 'rom'
  }

  /** For accesses that cannot wait; `whole`: they write all of the page. Undefined: there is no frame, and the VM was asked to end. */
  locate(address: number, write: boolean, whole = false): Hpa | undefined {
    const page = pageOf(address)
    if (whole && this.#parked.has(page)) this.#unpark(page)
    if (!write && !this.#frames.has(page) && !this.#parked.has(page))
      return hpa(this.#host.zeroFrame + (address & FRAME_MASK))
    const frame = this.#bring(page, write)
    if (frame === undefined) {
      this.#options.onFailure?.(EXHAUSTED)
      return undefined
    }
    if (write && this.#logging) this.dirty.add(page)
    return hpa(frame + (address & FRAME_MASK))
  }

  #bring(page: Gpa, write: boolean): Hpa | undefined {
    const frame = this.#frames.get(page)
    if (frame !== undefined && !(write && this.#host.references(frame) > 1)) return frame
    const fresh = this.#host.allocateFrame()
    if (fresh === undefined) return undefined
    const parked = this.#parked.get(page)
    if (parked) {
      try {
        parked.filler.fillNow(page, this.#host.bytes.subarray(fresh, fresh + FRAME_SIZE))
      } catch (error) {
        this.#options.onFailure?.((error as Error).message)
      }
      this.#unpark(page)
      this.#host.noteWrite(fresh, FRAME_SIZE)
    }
    this.#frames.set(page, fresh)
    if (frame !== undefined) {
      this.#host.bytes.copyWithin(fresh, frame, frame + FRAME_SIZE)
      this.#tell(page, 'unmapped')
      this.#drop(frame)
    }
    return fresh
  }

  #unpark(page: Gpa): void {
    const { filler } = this.#parked.get(page)!
    this.#parked.delete(page)
    filler.drop?.(page)
  }
  #tell(page: Gpa, change: MemoryChange): void {
    this.#options.paging?.onMemoryChange([{ address: page, length: FRAME_SIZE }], change)
  }
  #drop(frame: Hpa): void {
    if (this.#leases.has(frame)) this.#dropped.push(frame)
    else this.#host.freeFrame(frame)
  }
  /** A transfer begins or ends. */
  lend(at: Hpa, by: 1 | -1): void {
    const frame = hpa(at - (at % FRAME_SIZE))
    const count = (this.#leases.get(frame) ?? 0) + by
    if (count > 0) return void this.#leases.set(frame, count)
    this.#leases.delete(frame)
    for (let index = this.#dropped.indexOf(frame); index >= 0; index = this.#dropped.indexOf(frame)) {
      this.#dropped.splice(index, 1)
      this.#host.freeFrame(frame)
    }
  }

  translate(address: number, access: 'read' | 'write' | 'fetch'): Hpa | 'wait' | undefined {
    const region = this.regionOf(address, 1)
    const write = access === 'write'
    if (!region || (write && region.kind === 'rom')) return undefined
    const page = pageOf(address)
    const filler = this.#parked.get(page)?.filler
    if (filler?.fill && !filler.isNear?.(page)) return 'wait'
    const frame = this.#bring(page, write)
    if (frame === undefined) return 'wait'
    if (write && this.#logging) this.dirty.add(page)
    return hpa(frame + (address & FRAME_MASK))
  }

  ready(address: number): Promise<string | undefined> {
    const page = pageOf(address)
    const parked = this.#parked.get(page)
    if (!parked) return this.#options.onShortage?.() ?? Promise.resolve(EXHAUSTED)
    parked.filling ??= this.#fill(page, parked)
    return parked.filling
  }
  async #fill(page: Gpa, parked: Parked): Promise<string | undefined> {
    try {
      const content = await parked.filler.fill!(page)
      if (this.#parked.get(page) !== parked) return undefined
      const frame = this.#host.allocateFrame()
      if (frame === undefined) return EXHAUSTED
      this.#host.bytes.set(content, frame)
      this.#unpark(page)
      this.#frames.set(page, frame)
      this.#host.noteWrite(frame, FRAME_SIZE)
      return undefined
    } catch (error) {
      return (error as Error).message
    }
  }

  peek(address: number): Hpa | undefined {
    const frame = this.#frames.get(pageOf(address))
    return frame === undefined ? undefined : hpa(frame + (address & FRAME_MASK))
  }
  state(address: number): FrameState | undefined {
    if (!this.regionOf(address, 1)) return undefined
    const page = pageOf(address)
    const frame = this.#frames.get(page)
    const parked = this.#parked.get(page)
    if (parked) return { kind: parked.filling ? 'filling' : 'parked', filler: parked.filler }
    if (frame === undefined) return { kind: 'absent' }
    return { kind: this.#host.references(frame) > 1 ? 'shared' : 'private', frame, pins: this.#pins.get(page) ?? 0 }
  }
  isWritable(address: number): boolean {
    const frame = this.#frames.get(pageOf(address))
    if (frame === undefined || !this.isRam(address, 1) || this.#host.references(frame) > 1) return false
    return !this.#logging || this.dirty.has(pageOf(address))
  }
  get residentFrames(): number {
    return this.#frames.size
  }
  get pinnedFrames(): number {
    return this.#pins.size
  }
  usage(): FrameUsage {
    const { residentFrames, pinnedFrames } = this
    const sharedFrames = [...this.#frames.values()].filter((frame) => this.#host.references(frame) > 1).length
    return { residentFrames, sharedFrames, parkedFrames: this.#parked.size, pinnedFrames }
  }

  release(ranges: readonly { readonly address: Gpa; readonly length: number }[]): number {
    const taken = [...this.#frames.keys(), ...this.#parked.keys()].filter(
      (page) =>
        this.isRam(page, FRAME_SIZE) &&
        !this.#pins.has(page) &&
        ranges.some(({ address, length }) => page >= address && page + FRAME_SIZE <= address + length),
    )
    const resident = taken.filter((page) => this.#frames.has(page))
    if (resident.length > 0)
      this.#options.paging?.onMemoryChange(
        resident.map((address) => ({ address, length: FRAME_SIZE })),
        'unmapped',
      )
    for (const page of taken) this.#forget(page)
    return resident.length
  }
  #forget(page: Gpa): void {
    const frame = this.#frames.get(page)
    if (this.#parked.has(page)) this.#unpark(page)
    if (frame === undefined) return
    this.#frames.delete(page)
    this.#drop(frame)
  }

  park(address: number, filler: FrameFiller): 'done' | FrameRefusal {
    const page = pageOf(address)
    if (!this.isRam(address, 1)) return 'none'
    if (this.#parked.has(page)) return 'parked'
    const frame = this.#frames.get(page)
    if (frame !== undefined) {
      const refusal = this.#held(page, frame)
      if (refusal) return refusal
      this.#tell(page, 'unmapped')
      if (filler.keep?.(page, this.#host.bytes.subarray(frame, frame + FRAME_SIZE)) === false) return 'declined'
      this.#forget(page)
    }
    this.#parked.set(page, { filler, filling: undefined })
    return 'done'
  }
  expose(address: number): Hpa | FrameRefusal {
    const own = this.#own(address)
    if (typeof own === 'string') return own
    this.#host.shareFrame(own)
    this.#tell(pageOf(address), 'writeProtected')
    return own
  }
  share(address: number, frame: Hpa): 'done' | FrameRefusal {
    const own = this.#own(address)
    if (typeof own === 'string') return own
    this.#tell(pageOf(address), 'unmapped')
    const bytes = (of: Hpa): Uint8Array => this.#host.bytes.subarray(of, of + FRAME_SIZE)
    const theirs = bytes(frame)
    if (bytes(own).some((byte, index) => byte !== theirs[index])) return 'different'
    this.#frames.set(pageOf(address), frame)
    this.#drop(own)
    return 'done'
  }
  replace(address: number, frame: Hpa): 'done' | FrameRefusal {
    const page = pageOf(address)
    if (!this.isRam(address, 1)) return 'none'
    const own = this.#frames.get(page)
    const refusal = own === undefined ? undefined : this.#held(page, own)
    if (refusal) return refusal
    this.#tell(page, 'unmapped')
    this.#forget(page)
    this.#frames.set(page, frame)
    if (this.#logging) this.dirty.add(page)
    return 'done'
  }
  #own(address: number): Hpa | FrameRefusal {
    const page = pageOf(address)
    const frame = this.#frames.get(page)
    if (this.#parked.has(page)) return 'parked'
    if (frame === undefined || !this.isRam(address, 1)) return 'none'
    return this.#held(page, frame) ?? frame
  }
  #held(page: Gpa, frame: Hpa): FrameRefusal | undefined {
    return this.#pins.has(page) ? 'pinned' : this.#leases.has(frame) ? 'lent' : undefined
  }

  pin(address: number): Hpa | 'wait' | undefined {
    const at = this.translate(address, 'write')
    const page = pageOf(address)
    if (typeof at === 'number') this.#pins.set(page, (this.#pins.get(page) ?? 0) + 1)
    return at
  }
  unpin(address: number): boolean {
    const page = pageOf(address)
    const count = this.#pins.get(page)
    if (count === undefined) return false
    if (count > 1) this.#pins.set(page, count - 1)
    else this.#pins.delete(page)
    return true
  }

  setDirtyLog(on: boolean): void {
    this.#logging = on
    this.dirty.clear()
    if (on) for (const page of this.#frames.keys()) this.#tell(page, 'writeProtected')
  }
  addPage(address: number): boolean {
    if (address % FRAME_SIZE !== 0 || this.regionOf(address, 1)) return false
    this.#added.push({ start: gpa(address), length: FRAME_SIZE, kind: 'ram' })
    return true
  }
  removePage(address: number): boolean {
    const at = this.#added.findIndex(({ start }) => start === address)
    if (at < 0 || this.#pins.has(gpa(address))) return false
    this.release([{ address: gpa(address), length: FRAME_SIZE }])
    this.#added.splice(at, 1)
    return true
  }

  takeDirty(): Gpa[] {
    const pages = [...this.dirty].sort((left, right) => left - right)
    this.dirty.clear()
    for (const page of pages) this.#tell(page, 'writeProtected')
    return pages
  }
  /** A transfer wrote to these pages. */
  markDirty(address: number): void {
    if (this.#logging) this.dirty.add(pageOf(address))
  }

  *pages(): Iterable<MemoryPage> {
    for (const address of [...this.#frames.keys(), ...this.#parked.keys()].sort((left, right) => left - right)) {
      const frame = this.#frames.get(address)
      const bytes = new Uint8Array(FRAME_SIZE)
      if (frame === undefined) this.#parked.get(address)!.filler.fillNow(address, bytes)
      else bytes.set(this.#host.bytes.subarray(frame, frame + FRAME_SIZE))
      if (bytes.some((byte) => byte !== 0)) yield { address, bytes }
    }
  }
  load(pages: Iterable<MemoryPage>): void {
    for (const page of [...this.#frames.keys(), ...this.#parked.keys()]) {
      if (this.#frames.has(page)) this.#tell(page, 'unmapped')
      this.#forget(page)
    }
    for (const { address, bytes } of pages) {
      if (address % FRAME_SIZE !== 0 || bytes.length !== FRAME_SIZE || !this.regionOf(address, FRAME_SIZE))
        throw new NonrootError({ code: 'snapshot.mismatch', message: `no page at ${address}` })
      this.#host.bytes.set(bytes, this.#bring(address, true))
    }
  }
}
