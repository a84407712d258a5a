/**
 * A qcow2 image as a disk. Metadata is written back later, in an order that keeps the image consistent if the process is killed: data and counts, then the tables that refer to them,
 * then the counts of clusters that are no longer referred to. At worst, clusters are lost that nothing uses.
 */

import type { BlockBackend, BlockFormat, BlockFormatContext, ByteStore } from '@nonroot/contracts'
import { clearAutomatic, isQcow2, readHeader, setU64 } from './header.ts'
import type { Qcow2Header } from './header.ts'
import { Refcounts } from './refcounts.ts'
import { inflateCluster } from './inflate.ts'

const SECTOR = 512
/** Bit 63: the count is one, so that it may be written in place. In the high word. */
const COPIED = 0x8000_0000
const COMPRESSED = 0x4000_0000
/** Bit 0 of an L2 entry, version 3: reads as zeros. */
const ZERO = 1
const OFFSET_HIGH = 0x00ff_ffff
const OFFSET_LOW = 0xffff_fe00
/** L2 tables in memory: with the usual clusters a table is 64 KiB and covers 512 MiB. */
const MOST_TABLES = 64
/** Changed tables after which they are written without being asked. */
const MOST_DIRTY = 32

interface Table {
  readonly view: DataView
  offset: number
  dirty: boolean
}

/** What an L2 entry says of a cluster. */
type Place =
  | { readonly kind: 'absent' }
  | { readonly kind: 'zero'; readonly offset: number }
  | { readonly kind: 'data'; readonly offset: number; readonly own: boolean }
  | { readonly kind: 'compressed'; readonly offset: number; readonly length: number }

export const qcow2: BlockFormat = {
  name: 'qcow2',
  detects: isQcow2,
  async open(store, context) {
    const header = await readHeader(store, context.name, context.readOnly)
    const { backing } = header
    const base = backing && (await context.openBacking(backing.file, backing.format))
    const refcounts = context.readOnly ? undefined : await Refcounts.open(store, header)
    if (refcounts) await clearAutomatic(store, header)
    return Qcow2Image.open(store, header, refcounts, base, context)
  },
}

class Qcow2Image implements BlockBackend {
  readonly sectorSize = SECTOR
  readonly size: number
  readonly readOnly: boolean
  readonly #store: ByteStore
  readonly #header: Qcow2Header
  readonly #refcounts: Refcounts | undefined
  readonly #base: BlockBackend | undefined
  /** The L1 table, as it is in the file. */
  readonly #l1: DataView
  #l1Dirty = false
  readonly #tables = new Map<number, Table>()
  readonly #loading = new Map<number, Promise<Table | undefined>>()
  /** Clusters to be freed once nothing durable refers to them. */
  #released: number[] = []
  /** Writes in place: a cluster is not free before those that were on their way to it have come. */
  readonly #writing = new Set<Promise<void>>()
  /** Changes of metadata go one after the other. */
  #last: Promise<unknown> = Promise.resolve()

  private constructor(
    store: ByteStore,
    header: Qcow2Header,
    l1: DataView,
    refcounts: Refcounts | undefined,
    base: BlockBackend | undefined,
  ) {
    this.#store = store
    this.#header = header
    this.#l1 = l1
    this.#refcounts = refcounts
    this.#base = base
    this.size = header.size
    this.readOnly = refcounts === undefined
  }

  static async open(
    store: ByteStore,
    header: Qcow2Header,
    refcounts: Refcounts | undefined,
    base: BlockBackend | undefined,
    context: BlockFormatContext,
  ): Promise<BlockBackend> {
    const bytes = new Uint8Array(header.l1Entries * 8)
    await store.read(header.l1Offset, bytes)
    const image = new Qcow2Image(store, header, new DataView(bytes.buffer), refcounts, base)
    for (let index = 0; index < header.l1Entries; index++) image.#checkOffset(image.#l1Entry(index), context.name)
    return image
  }

  #exclusively<T>(run: () => Promise<T>): Promise<T> {
    const next = this.#last.then(run, run)
    this.#last = next.catch(() => {})
    return next
  }

  /** A file that was tampered with must not make us read or write elsewhere in it. */
  #checkOffset(offset: number, what: string): number {
    if (offset % this.#header.clusterSize !== 0)
      throw new Error(`${what}: a table refers to ${offset}, which is no cluster`)
    return offset
  }

  // Tables

  #l1Entry(index: number): number {
    return offsetOf(this.#l1, index * 8)
  }

  get #entriesPerTable(): number {
    return this.#header.clusterSize / 8
  }

  #table(index: number): Promise<Table | undefined> {
    const present = this.#tables.get(index)
    if (present) return Promise.resolve(present)
    const offset = this.#l1Entry(index)
    if (offset === 0) return Promise.resolve(undefined)
    let loading = this.#loading.get(index)
    if (!loading) {
      loading = this.#load(index, offset).finally(() => this.#loading.delete(index))
      this.#loading.set(index, loading)
    }
    return loading
  }

  async #load(index: number, offset: number): Promise<Table> {
    const bytes = new Uint8Array(this.#header.clusterSize)
    await this.#store.read(offset, bytes)
    if (this.#tables.size >= MOST_TABLES) {
      for (const [other, { dirty }] of this.#tables) {
        if (dirty) continue
        this.#tables.delete(other)
        break
      }
    }
    const table = { view: new DataView(bytes.buffer), offset, dirty: false }
    this.#tables.set(index, table)
    return table
  }

  async #place(cluster: number): Promise<Place> {
    const table = await this.#table(Math.floor(cluster / this.#entriesPerTable))
    if (!table) return { kind: 'absent' }
    const at = (cluster % this.#entriesPerTable) * 8
    const high = table.view.getUint32(at)
    if (high & COMPRESSED) return this.#compressedPlace(high, table.view.getUint32(at + 4))
    const offset = this.#checkOffset(offsetOf(table.view, at), 'an L2 table')
    if (this.#header.version === 3 && table.view.getUint32(at + 4) & ZERO) return { kind: 'zero', offset }
    return offset === 0 ? { kind: 'absent' } : { kind: 'data', offset, own: (high & COPIED) !== 0 }
  }

  #compressedPlace(high: number, low: number): Place {
    // Bits from 62 - (clusterBits - 8) on count further sectors.
    const shift = 62 - (this.#header.clusterBits - 8) - 32
    const offset = (high & (2 ** shift - 1)) * 2 ** 32 + low
    const sectors = (high & 0x3fff_ffff) >>> shift
    return { kind: 'compressed', offset, length: (sectors + 1) * SECTOR - (offset % SECTOR) }
  }

  // Reading

  async read(offset: number, into: Uint8Array): Promise<void> {
    for (const { cluster, from, at, length } of this.#parts(offset, into.length))
      await this.#readPart(cluster, from, into.subarray(at, at + length))
  }

  *#parts(offset: number, length: number): Generator<{ cluster: number; from: number; at: number; length: number }> {
    const { clusterSize } = this.#header
    for (let at = 0; at < length;) {
      const from = (offset + at) % clusterSize
      const part = Math.min(clusterSize - from, length - at)
      yield { cluster: Math.floor((offset + at) / clusterSize), from, at, length: part }
      at += part
    }
  }

  async #readPart(cluster: number, from: number, into: Uint8Array): Promise<void> {
    const place = await this.#place(cluster)
    if (place.kind === 'data') return this.#store.read(place.offset + from, into)
    if (place.kind === 'zero') return void into.fill(0)
    if (place.kind === 'absent') return this.#readBase(cluster * this.#header.clusterSize + from, into)
    const packed = new Uint8Array(place.length)
    await this.#store.read(place.offset, packed)
    const whole = await inflateCluster(packed, this.#header.clusterSize)
    into.set(whole.subarray(from, from + into.length))
  }

  async #readBase(offset: number, into: Uint8Array): Promise<void> {
    // A backing file may be shorter than what lies over it.
    const there = Math.max(0, Math.min(into.length, (this.#base?.size ?? 0) - offset))
    if (there > 0) await this.#base!.read(offset, into.subarray(0, there))
    into.fill(0, there)
  }

  // Writing

  async write(offset: number, from: Uint8Array): Promise<void> {
    if (this.readOnly) throw new Error('the image is open for reading only')
    for (const { cluster, from: start, at, length } of this.#parts(offset, from.length)) {
      const part = from.subarray(at, at + length)
      const place = await this.#place(cluster)
      if (place.kind === 'data' && place.own) await this.#writeInPlace(place.offset + start, part)
      else await this.#exclusively(() => this.#writeNew(cluster, start, part))
    }
  }

  async #writeInPlace(offset: number, part: Uint8Array): Promise<void> {
    const writing = this.#store.write(offset, part)
    this.#writing.add(writing)
    try {
      await writing
    } finally {
      this.#writing.delete(writing)
    }
  }

  async #writeNew(cluster: number, start: number, part: Uint8Array): Promise<void> {
    const place = await this.#place(cluster)
    // A concurrent write to the same cluster has allocated it.
    if (place.kind === 'data' && place.own) return this.#store.write(place.offset + start, part)
    const { clusterSize } = this.#header
    let whole = part
    if (part.length < clusterSize) {
      whole = new Uint8Array(clusterSize)
      await this.#readPart(cluster, 0, whole)
      whole.set(part, start)
    }
    // A cluster that reads as zeros may have a place already.
    const reused =
      place.kind === 'zero' && place.offset !== 0 && (await this.#refcounts!.get(place.offset / clusterSize)) === 1
    const offset = reused && place.kind === 'zero' ? place.offset : await this.#refcounts!.allocate()
    await this.#store.write(offset, whole)
    const table = await this.#ownTable(Math.floor(cluster / this.#entriesPerTable))
    if (!reused) this.#releasePlace(place)
    this.#setEntry(table, cluster, offset, COPIED, 0)
    await this.#writeIfMany()
  }

  #releasePlace(place: Place): void {
    const { clusterSize } = this.#header
    if (place.kind === 'absent' || place.offset === 0) return
    if (place.kind !== 'compressed') return void this.#released.push(place.offset)
    // Compressed clusters share host clusters, each of which counts them all.
    const last = Math.floor((place.offset + place.length - 1) / clusterSize)
    for (let host = Math.floor(place.offset / clusterSize); host <= last; host++)
      this.#released.push(host * clusterSize)
  }

  #setEntry(table: Table, cluster: number, offset: number, high: number, low: number): void {
    const at = (cluster % this.#entriesPerTable) * 8
    setU64(table.view, at, offset)
    table.view.setUint32(at, (table.view.getUint32(at) | high) >>> 0)
    table.view.setUint32(at + 4, (table.view.getUint32(at + 4) | low) >>> 0)
    table.dirty = true
  }

  /** An L2 table that is this image's alone. */
  async #ownTable(index: number): Promise<Table> {
    for (;;) {
      const present = await this.#table(index)
      if (!present || !(this.#l1.getUint32(index * 8) & COPIED)) return this.#newTable(index, present)
      // Once it is marked it stays; meanwhile it may have made room for another.
      if (this.#tables.get(index) !== present) continue
      present.dirty = true
      return present
    }
  }

  async #newTable(index: number, present: Table | undefined): Promise<Table> {
    const offset = await this.#refcounts!.allocate()
    const view = new DataView(
      present ? (present.view.buffer.slice(0) as ArrayBuffer) : new ArrayBuffer(this.#header.clusterSize),
    )
    // Snapshots share the old one, and what it refers to.
    if (present) this.#released.push(present.offset)
    const table = { view, offset, dirty: true }
    this.#tables.set(index, table)
    setU64(this.#l1, index * 8, offset)
    this.#l1.setUint32(index * 8, (this.#l1.getUint32(index * 8) | COPIED) >>> 0)
    this.#l1Dirty = true
    return table
  }

  discard(offset: number, length: number): Promise<void> {
    return this.writeZeroes(offset, length)
  }

  async writeZeroes(offset: number, length: number): Promise<void> {
    const { clusterSize, version } = this.#header
    for (const { cluster, from, length: part } of this.#parts(offset, length)) {
      const end = Math.min(clusterSize, this.size - cluster * clusterSize)
      if (version === 3 && from === 0 && part === end) await this.#exclusively(() => this.#zero(cluster))
      else await this.write(cluster * clusterSize + from, new Uint8Array(part))
    }
  }

  async #zero(cluster: number): Promise<void> {
    const place = await this.#place(cluster)
    if (place.kind === 'zero' || (place.kind === 'absent' && !this.#base)) return
    const table = await this.#ownTable(Math.floor(cluster / this.#entriesPerTable))
    this.#releasePlace(place)
    this.#setEntry(table, cluster, 0, 0, ZERO)
    await this.#writeIfMany()
  }

  // Making it last

  flush(): Promise<void> {
    return this.#exclusively(() => this.#flush())
  }

  async #writeIfMany(): Promise<void> {
    let dirty = 0
    for (const table of this.#tables.values()) if (table.dirty) dirty++
    if (dirty > MOST_DIRTY || this.#released.length > 4096) await this.#flush()
  }

  async #flush(): Promise<void> {
    const refcounts = this.#refcounts
    if (!refcounts) return
    await refcounts.flush()
    // Data, and counts of what is about to be referred to.
    await this.#store.flush()
    let written = false
    for (const table of this.#tables.values()) {
      if (!table.dirty) continue
      table.dirty = false
      written = true
      await this.#store.write(table.offset, new Uint8Array(table.view.buffer))
    }
    if (written) await this.#store.flush()
    if (this.#l1Dirty) {
      this.#l1Dirty = false
      await this.#store.write(this.#header.l1Offset, new Uint8Array(this.#l1.buffer))
      await this.#store.flush()
    }
    if (this.#released.length === 0) return
    const released = this.#released.splice(0)
    await Promise.allSettled(this.#writing)
    for (const offset of released) await refcounts.release(offset)
    await refcounts.flush()
  }

  async close(): Promise<void> {
    await this.flush()
    await this.#store.close()
    await this.#base?.close()
  }
}

const offsetOf = (view: DataView, at: number): number =>
  (view.getUint32(at) & OFFSET_HIGH) * 2 ** 32 + ((view.getUint32(at + 4) & OFFSET_LOW) >>> 0)
