/** Which clusters of a qcow2 file are in use. Written back when the caller says so. Independent of the disk content. */

import type { ByteStore } from '@nonroot/contracts'
import { getU64, setU64, writeTablePlaces } from './header.ts'
import type { Qcow2Header } from './header.ts'

const ENTRY_BYTES = 2

export class Refcounts {
  readonly #store: ByteStore
  readonly #header: Qcow2Header
  /** Where each block of counts is; 0: nowhere. */
  #table: Float64Array
  #tableDirty = false
  #tableMoved = false
  readonly #blocks = new Map<number, DataView>()
  readonly #dirty = new Set<number>()
  /** No cluster below it is free. */
  #free = 0

  private constructor(store: ByteStore, header: Qcow2Header, table: Float64Array) {
    this.#store = store
    this.#header = header
    this.#table = table
  }

  static async open(store: ByteStore, header: Qcow2Header): Promise<Refcounts> {
    const bytes = new Uint8Array(header.refcountTableClusters * header.clusterSize)
    await store.read(header.refcountTableOffset, bytes)
    const view = new DataView(bytes.buffer)
    const table = Float64Array.from({ length: bytes.length / 8 }, (_, index) => getU64(view, index * 8))
    for (const offset of table)
      if (offset % header.clusterSize !== 0 || offset >= store.size)
        throw new Error('a refcount block is outside the file')
    return new Refcounts(store, header, table)
  }

  get #perBlock(): number {
    return this.#header.clusterSize / ENTRY_BYTES
  }

  async #block(index: number): Promise<DataView | undefined> {
    const present = this.#blocks.get(index)
    const offset = this.#table[index] ?? 0
    if (present || offset === 0) return present
    const bytes = new Uint8Array(this.#header.clusterSize)
    await this.#store.read(offset, bytes)
    const view = new DataView(bytes.buffer)
    this.#blocks.set(index, view)
    return view
  }

  async get(cluster: number): Promise<number> {
    const block = await this.#block(Math.floor(cluster / this.#perBlock))
    return block?.getUint16((cluster % this.#perBlock) * ENTRY_BYTES) ?? 0
  }

  /** `own`: where a block of counts goes that is not there yet; among the clusters that it counts, so that no other is needed for it. */
  async #set(cluster: number, count: number, own?: number): Promise<void> {
    const index = Math.floor(cluster / this.#perBlock)
    const first = index * this.#perBlock
    // What has no block of counts has nothing in use.
    const free = cluster === first ? first + 1 : first
    const block = (await this.#block(index)) ?? (await this.#addBlock(index, own ?? free))
    block.setUint16((cluster % this.#perBlock) * ENTRY_BYTES, count)
    this.#dirty.add(index)
  }

  /** A free cluster's offset; it is in use from now on. */
  async allocate(): Promise<number> {
    let cluster = this.#free
    while ((await this.get(cluster)) !== 0) cluster++
    // First: the block that counts it may itself need a cluster, and must take another one.
    this.#free = cluster + 1
    await this.#set(cluster, 1)
    return cluster * this.#header.clusterSize
  }

  async release(offset: number): Promise<void> {
    const cluster = offset / this.#header.clusterSize
    const count = await this.get(cluster)
    if (count === 0) return
    await this.#set(cluster, count - 1)
    if (count === 1) this.#free = Math.min(this.#free, cluster)
  }

  async #addBlock(index: number, own: number): Promise<DataView> {
    if (index >= this.#table.length) await this.#growTable(index + 1)
    const view = new DataView(new ArrayBuffer(this.#header.clusterSize))
    view.setUint16((own - index * this.#perBlock) * ENTRY_BYTES, 1)
    if (own === this.#free) this.#free++
    this.#table[index] = own * this.#header.clusterSize
    this.#tableDirty = true
    this.#blocks.set(index, view)
    this.#dirty.add(index)
    return view
  }

  /** A table twice as large, in consecutive clusters at the end, where a block of counts begins. */
  async #growTable(entries: number): Promise<void> {
    const { clusterSize, refcountTableOffset, refcountTableClusters } = this.#header
    const clusters = Math.max(2 * refcountTableClusters, Math.ceil((entries * 8) / clusterSize))
    const table = new Float64Array((clusters * clusterSize) / 8)
    table.set(this.#table)
    const old = { offset: refcountTableOffset, clusters: refcountTableClusters }
    this.#table = table
    const end = Math.max(this.#free, Math.ceil(this.#store.size / clusterSize), entries * this.#perBlock)
    const start = Math.ceil(end / this.#perBlock) * this.#perBlock
    if (clusters >= this.#perBlock) throw new Error('the image is full: its clusters are too small for more')
    this.#header.refcountTableOffset = start * clusterSize
    this.#header.refcountTableClusters = clusters
    this.#tableMoved = this.#tableDirty = true
    for (let cluster = start; cluster < start + clusters; cluster++) await this.#set(cluster, 1, start + clusters)
    for (let cluster = 0; cluster < old.clusters; cluster++) this.#retired.push(old.offset + cluster * clusterSize)
  }
  /** Clusters of tables that were replaced: free once the file says so. */
  readonly #retired: number[] = []

  /** Durable when it resolves. */
  async flush(): Promise<void> {
    if (this.#dirty.size === 0 && !this.#tableDirty) return
    for (const index of this.#dirty)
      await this.#store.write(this.#table[index]!, new Uint8Array(this.#blocks.get(index)!.buffer))
    this.#dirty.clear()
    if (this.#tableDirty) {
      const view = new DataView(new ArrayBuffer(this.#table.length * 8))
      this.#table.forEach((offset, index) => setU64(view, index * 8, offset))
      await this.#store.flush()
      await this.#store.write(this.#header.refcountTableOffset, new Uint8Array(view.buffer))
      this.#tableDirty = false
    }
    await this.#store.flush()
    if (!this.#tableMoved) return
    await writeTablePlaces(this.#store, this.#header)
    await this.#store.flush()
    this.#tableMoved = false
    for (const offset of this.#retired.splice(0)) await this.release(offset)
  }
}
