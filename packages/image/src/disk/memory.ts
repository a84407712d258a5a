/** Bytes in memory: as the storage of a disk format, as a disk, and as an overlay of another disk. Sparse. */

import { NonrootError } from '@nonroot/contracts'
import type { BlockBackend, ByteStore } from '@nonroot/contracts'

const SECTOR = 512
const PAGE = 64 * 1024

interface Part {
  readonly page: number
  /** In the page, and in the range. */
  readonly from: number
  readonly at: number
  readonly size: number
}

function partsOf(offset: number, length: number): Part[] {
  const parts: Part[] = []
  for (let at = 0; at < length;) {
    const from = (offset + at) % PAGE
    const size = Math.min(PAGE - from, length - at)
    parts.push({ page: Math.floor((offset + at) / PAGE), from, at, size })
    at += size
  }
  return parts
}

export interface MemoryStore extends ByteStore {
  /** A copy of what is in it. */
  contents(): Uint8Array
}

function newPage(pages: Map<number, Uint8Array>, page: number): Uint8Array {
  const bytes = new Uint8Array(PAGE)
  pages.set(page, bytes)
  return bytes
}

export function createMemoryStore(initial: Uint8Array = new Uint8Array(0)): MemoryStore {
  const pages = new Map<number, Uint8Array>()
  let size = 0
  const store: MemoryStore = {
    get size() {
      return size
    },
    async read(offset, into) {
      for (const { page, from, at, size: length } of partsOf(offset, into.length)) {
        const bytes = pages.get(page)
        if (bytes) into.set(bytes.subarray(from, from + length), at)
        else into.fill(0, at, at + length)
      }
    },
    async write(offset, from) {
      for (const { page, from: start, at, size: length } of partsOf(offset, from.length)) {
        const bytes = pages.get(page) ?? newPage(pages, page)
        bytes.set(from.subarray(at, at + length), start)
      }
      size = Math.max(size, offset + from.length)
    },
    flush: async () => {},
    close: async () => {},
    contents() {
      const all = new Uint8Array(size)
      for (const { page, at, size: length } of partsOf(0, size)) all.set(pages.get(page)?.subarray(0, length) ?? [], at)
      return all
    },
  }
  void store.write(0, initial)
  return store
}

/** A disk that is there as long as the VM is. */
export function createMemoryDisk(size: number): BlockBackend {
  if (!Number.isSafeInteger(size) || size <= 0 || size % SECTOR !== 0) {
    throw new NonrootError({
      code: 'host.backend',
      message: `a disk of ${size} bytes: not a positive multiple of ${SECTOR}`,
      value: size,
    })
  }
  const nothing: BlockBackend = {
    size,
    sectorSize: SECTOR,
    readOnly: true,
    read: async (_offset, into) => void into.fill(0),
    write: () => Promise.reject(new Error('read-only')),
    flush: async () => {},
    close: async () => {},
  }
  return createOverlay(nothing)
}

/** What is written goes to memory; what was not is read from `base`, which is never written. Closing closes both. */
export function createOverlay(base: BlockBackend): BlockBackend {
  const pages = new Map<number, Uint8Array>()
  /** Pages on their way from the base: two writes to one must not each bring their own. */
  const coming = new Map<number, Promise<Uint8Array>>()
  const bring = (page: number): Promise<Uint8Array> => {
    const present = pages.get(page)
    if (present) return Promise.resolve(present)
    let promise = coming.get(page)
    if (!promise) {
      const bytes = new Uint8Array(PAGE)
      const length = Math.min(PAGE, base.size - page * PAGE)
      promise = base
        .read(page * PAGE, bytes.subarray(0, length))
        .then(() => {
          const present = pages.get(page)
          if (!present) pages.set(page, bytes)
          return present ?? bytes
        })
        .finally(() => coming.delete(page))
      coming.set(page, promise)
    }
    return promise
  }
  return {
    size: base.size,
    sectorSize: base.sectorSize,
    readOnly: false,
    async read(offset, into) {
      for (const { page, from, at, size } of partsOf(offset, into.length)) {
        const bytes = pages.get(page)
        if (bytes) into.set(bytes.subarray(from, from + size), at)
        else await base.read(offset + at, into.subarray(at, at + size))
      }
    },
    async write(offset, from) {
      for (const { page, from: start, at, size } of partsOf(offset, from.length)) {
        const whole = start === 0 && size === Math.min(PAGE, base.size - page * PAGE)
        // A whole page needs nothing of the base, unless a part of it is being brought.
        const bytes = pages.get(page) ?? (whole && !coming.has(page) ? newPage(pages, page) : await bring(page))
        bytes.set(from.subarray(at, at + size), start)
      }
    },
    async writeZeroes(offset, length) {
      for (const { page, from, size } of partsOf(offset, length)) (await bring(page)).fill(0, from, from + size)
    },
    /** Whole pages are as the base has them again, and cost nothing. */
    async discard(offset, length) {
      for (const { page, from, size } of partsOf(offset, length)) {
        const whole = from === 0 && size === Math.min(PAGE, base.size - page * PAGE)
        if (whole && !coming.has(page)) pages.delete(page)
      }
    },
    flush: async () => {},
    close: () => base.close(),
  }
}
