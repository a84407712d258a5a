/**
 * Pages that are as they were read from a disk: their content need not be kept anywhere else ("VSwapper", ASPLOS 2014). Where a page came from
 * is noted when a device reads a disk into memory, and its content is compared with the disk when it is to go, so writes to it need not be watched.
 * Independent of devices and reclaim policies.
 */

import { FRAME_SIZE, hpa } from '@nonroot/contracts'
import type { BlockBackend, DiskPages, Gpa, GuestFrames, HostBackends, HostMemory, Hpa } from '@nonroot/contracts'

const SECTOR = 512
const SECTORS = FRAME_SIZE / SECTOR
/** An entry of the table is a disk's number above the number of a frame; host memory has at most 4 GiB. */
const FRAME_BITS = 20
const MOST_DISKS = 2 ** (32 - FRAME_BITS) - 1
const MOST_SECTOR = 2 ** 32 - SECTORS

interface Disk {
  readonly number: number
  readonly backend: BlockBackend
  /** Pages that went, by their first sector. */
  readonly gone: Map<number, Gpa[]>
  /** Bytes that are being written. */
  readonly writing: Set<{ readonly start: number; readonly end: number }>
}

interface Origin {
  readonly disk: Disk
  readonly sector: number
  readonly check: number
}

export class DiskOrigins implements DiskPages {
  readonly #host: HostMemory
  readonly #frames: () => Pick<GuestFrames, 'translate' | 'ready'>
  readonly #disks: Disk[] = []
  /** By frame, which is found where its number leads: one that is displaced is written like others. Made for the first disk. */
  #tags = new Uint32Array(0)
  #sectors = new Uint32Array(0)
  readonly #size: number
  readonly #gone = new Map<Gpa, Origin>()
  readonly #scratch = new Uint8Array(FRAME_SIZE)
  /** The page whose content is in `#scratch`. */
  #ready: Gpa | undefined

  /** For a guest of so many pages. */
  constructor(host: HostMemory, pages: number, frames: () => Pick<GuestFrames, 'translate' | 'ready'>) {
    this.#host = host
    this.#frames = frames
    this.#size = 2 ** Math.ceil(Math.log2(pages))
  }

  /** The host's back ends, with disks that note what is read. */
  wrap(backends: HostBackends): HostBackends {
    const open: HostBackends['open'] = async (kind, request) => {
      const backend = await backends.open(kind, request)
      return kind === 'block' ? (this.disk(backend as BlockBackend) as typeof backend) : backend
    }
    return { ...backends, open }
  }

  /** Disks that cannot be read while somebody waits stay as they are. */
  disk(backend: BlockBackend): BlockBackend {
    const { readNow, readBlocking, readVector, writeVector, writeNow, discard, writeZeroes, onResize } = backend
    if (!readNow || !readBlocking || this.#disks.length === MOST_DISKS) return backend
    const disk: Disk = { number: this.#disks.length + 1, backend, gone: new Map(), writing: new Set() }
    this.#disks.push(disk)
    if (this.#tags.length === 0)
      [this.#tags, this.#sectors] = [new Uint32Array(this.#size), new Uint32Array(this.#size)]
    const note = (offset: number, views: readonly Uint8Array[]): void => this.#note(disk, offset, views)
    const change = (offset: number, length: number, work: () => Promise<void>): Promise<void> =>
      this.#change(disk, offset, length, work)
    return {
      get size() {
        return backend.size
      },
      sectorSize: backend.sectorSize,
      readOnly: backend.readOnly,
      read: (offset, into) => backend.read(offset, into).then(() => note(offset, [into])),
      write: (offset, from) => change(offset, from.length, () => backend.write(offset, from)),
      ...(readVector && {
        readVector: (offset, into) => readVector.call(backend, offset, into).then(() => note(offset, into)),
      }),
      ...(writeVector && {
        writeVector: (offset, from) => change(offset, lengthOf(from), () => writeVector.call(backend, offset, from)),
      }),
      readNow(offset, into) {
        const isDone = readNow.call(backend, offset, into)
        if (isDone) note(offset, into)
        return isDone
      },
      ...(writeNow && {
        writeNow: (offset, from) =>
          this.#goneIn(disk, offset, lengthOf(from)).length === 0 && writeNow.call(backend, offset, from),
      }),
      readBlocking: (offset, into) => readBlocking.call(backend, offset, into),
      flush: () => backend.flush(),
      ...(discard && {
        discard: (offset, length) => change(offset, length, () => discard.call(backend, offset, length)),
      }),
      ...(writeZeroes && {
        writeZeroes: (offset, length) => change(offset, length, () => writeZeroes.call(backend, offset, length)),
      }),
      ...(onResize && { onResize: (listener) => onResize.call(backend, listener) }),
      close: () => backend.close(),
    }
  }

  #note(disk: Disk, offset: number, views: readonly Uint8Array[]): void {
    let at = offset
    for (const view of views) {
      if (view.buffer === this.#host.bytes.buffer) this.#noteView(disk, at, view.byteOffset, view.length)
      at += view.length
    }
  }
  #noteView(disk: Disk, offset: number, address: number, length: number): void {
    const first = Math.ceil(address / FRAME_SIZE)
    for (let frame = first; (frame + 1) * FRAME_SIZE <= address + length; frame++) {
      const sector = (offset + frame * FRAME_SIZE - address) / SECTOR
      if (!Number.isInteger(sector) || sector > MOST_SECTOR) return
      const slot = frame & (this.#size - 1)
      this.#tags[slot] = (disk.number << FRAME_BITS) | frame
      this.#sectors[slot] = sector
    }
  }

  /** Pages come back before what they were read from changes. None goes meanwhile. */
  async #change(disk: Disk, offset: number, length: number, work: () => Promise<void>): Promise<void> {
    const range = { start: offset, end: offset + length }
    disk.writing.add(range)
    try {
      const frames = this.#frames()
      for (const page of this.#goneIn(disk, offset, length))
        while (frames.translate(page, 'read') === 'wait') {
          const failure = await frames.ready(page)
          if (failure !== undefined) throw new Error(failure)
        }
      await work()
    } finally {
      disk.writing.delete(range)
    }
  }

  #goneIn({ gone }: Disk, offset: number, length: number): Gpa[] {
    const pages: Gpa[] = []
    if (gone.size === 0) return pages
    const [first, end] = [Math.floor(offset / SECTOR) - SECTORS + 1, Math.ceil((offset + length) / SECTOR)]
    // Whichever is less: a discard may name the whole disk.
    if (end - first > gone.size) {
      for (const [sector, some] of gone) if (sector >= first && sector < end) pages.push(...some)
    } else for (let sector = first; sector < end; sector++) pages.push(...(gone.get(sector) ?? []))
    return pages
  }

  // Of a policy that takes pages

  mayKeep(frame: Hpa): boolean {
    const number = frame / FRAME_SIZE
    const tag = this.#tags[number & (this.#size - 1)] ?? 0
    return tag !== 0 && (tag & (2 ** FRAME_BITS - 1)) === number
  }

  keep(address: Gpa, content: Uint8Array): boolean {
    const frame = hpa(content.byteOffset)
    if (!this.mayKeep(frame)) return false
    const slot = (frame / FRAME_SIZE) & (this.#size - 1)
    const disk = this.#disks[(this.#tags[slot]! >>> FRAME_BITS) - 1]!
    const sector = this.#sectors[slot]!
    if (!this.#isAsOn(disk, sector * SECTOR, content)) {
      this.#tags[slot] = 0
      return false
    }
    this.#gone.set(address, { disk, sector, check: checksum(this.#scratch) })
    const beside = disk.gone.get(sector)
    if (beside) beside.push(address)
    else disk.gone.set(sector, [address])
    return true
  }

  #isAsOn({ backend, writing }: Disk, offset: number, content: Uint8Array): boolean {
    for (const { start, end } of writing) if (offset < end && offset + FRAME_SIZE > start) return false
    this.#ready = undefined
    // What would be written otherwise is not waited for either. It was read before, and is in the host's page cache.
    try {
      backend.readBlocking!(offset, this.#scratch)
    } catch {
      return false
    }
    return isSame(wordsOf(this.#scratch), wordsOf(content))
  }

  fillNow(address: Gpa, into: Uint8Array): void {
    const { disk, sector, check } = this.#gone.get(address)!
    if (this.#ready === address) return void into.set(this.#scratch)
    disk.backend.readBlocking!(sector * SECTOR, into)
    verify(into, check)
  }

  async fill(address: Gpa): Promise<Uint8Array> {
    const { disk, sector, check } = this.#gone.get(address)!
    const content = new Uint8Array(FRAME_SIZE)
    await disk.backend.read(sector * SECTOR, content)
    return verify(content, check)
  }

  /** In the host's page cache, as far as the disk knows. */
  isNear(address: Gpa): boolean {
    const { disk, sector, check } = this.#gone.get(address)!
    this.#ready = undefined
    try {
      if (!disk.backend.readNow!(sector * SECTOR, [this.#scratch])) return false
      verify(this.#scratch, check)
    } catch {
      // `fill` says what is wrong.
      return false
    }
    this.#ready = address
    return true
  }

  drop(address: Gpa): void {
    const { disk, sector } = this.#gone.get(address)!
    this.#gone.delete(address)
    const beside = disk.gone.get(sector)!
    if (beside.length === 1) disk.gone.delete(sector)
    else beside.splice(beside.indexOf(address), 1)
    if (this.#ready === address) this.#ready = undefined
  }
}

const lengthOf = (views: readonly Uint8Array[]): number => views.reduce((sum, { length }) => sum + length, 0)

const wordsOf = (page: Uint8Array): Int32Array => new Int32Array(page.buffer, page.byteOffset, FRAME_SIZE / 4)

function isSame(one: Int32Array, other: Int32Array): boolean {
  for (let n = 0; n < one.length; n++) if (one[n] !== other[n]) return false
  return true
}

/** FNV-1a over words of 32 bits. */
function checksum(page: Uint8Array): number {
  let sum = 0x811c9dc5 | 0
  for (const word of wordsOf(page)) sum = Math.imul(sum ^ word, 0x01000193)
  return sum
}

function verify(page: Uint8Array, check: number): Uint8Array {
  if (checksum(page) !== check) throw new Error('its disk was changed beneath the VM')
  return page
}
