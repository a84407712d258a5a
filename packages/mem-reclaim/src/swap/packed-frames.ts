/**
 * Compressed pages in host frames: what swapping gains in memory is counted against what it needs. A frame is divided into equal cells, so that a freed
 * cell fits the next page of its class.
 */

import { FRAME_SIZE, hpa } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'

/** Cells per frame. Nothing larger than half a frame is kept: it would gain nothing. */
const CLASSES: readonly number[] = [2, 3, 4, 5, 6, 8, 10, 12, 16, 24, 31]
/** The length of a packed page, in its cell before its bytes. */
const HEADER = 2
export const LARGEST = FRAME_SIZE / 2 - HEADER
const CELL_BITS = 5

interface Store {
  readonly frame: Hpa
  readonly cells: number
  /** One bit per cell. */
  used: number
}

/** A cell: the number of its frame, and its number there. Never 0. */
export type Cell = number

export class PackedFrames {
  readonly #host: HostMemory
  readonly #stores = new Map<number, Store>()
  /** By class: frames that have a free cell. */
  readonly #open: readonly Set<Store>[] = CLASSES.map(() => new Set())

  constructor(host: HostMemory) {
    this.#host = host
  }

  /** Frames that it has taken. */
  get frames(): number {
    return this.#stores.size
  }

  /** Undefined: it is too large, or the host has no frame. */
  put(packed: Uint8Array): Cell | undefined {
    if (packed.length > LARGEST) return undefined
    const index = CLASSES.findLastIndex((cells) => cellSize(cells) >= packed.length + HEADER)
    const store = this.#open[index]!.values().next().value ?? this.#newStore(index)
    if (!store) return undefined
    // The lowest bit that is not set.
    const cell = 31 - Math.clz32(~store.used & -~store.used)
    store.used |= 1 << cell
    if (isFull(store)) this.#open[index]!.delete(store)
    const at = store.frame + cell * cellSize(store.cells)
    this.#host.view.setUint16(at, packed.length, true)
    this.#host.bytes.set(packed, at + HEADER)
    return ((store.frame >>> 12) << CELL_BITS) | cell
  }

  /** The bytes of a cell, in host memory: valid until `free`. */
  get(cell: Cell): Uint8Array {
    const store = this.#storeOf(cell)
    const at = store.frame + (cell & ((1 << CELL_BITS) - 1)) * cellSize(store.cells)
    return this.#host.bytes.subarray(at + HEADER, at + HEADER + this.#host.view.getUint16(at, true))
  }

  free(cell: Cell): void {
    const store = this.#storeOf(cell)
    store.used &= ~(1 << (cell & ((1 << CELL_BITS) - 1)))
    const open = this.#open[CLASSES.indexOf(store.cells)]!
    if (store.used !== 0) return void open.add(store)
    open.delete(store)
    this.#stores.delete(store.frame >>> 12)
    this.#host.freeFrame(store.frame)
  }

  dispose(): void {
    for (const { frame } of this.#stores.values()) this.#host.freeFrame(frame)
    this.#stores.clear()
    for (const open of this.#open) open.clear()
  }

  #storeOf(cell: Cell): Store {
    return this.#stores.get(cell >>> CELL_BITS)!
  }

  #newStore(index: number): Store | undefined {
    const frame = this.#host.allocateFrame()
    if (frame === undefined) return undefined
    const store: Store = { frame: hpa(frame), cells: CLASSES[index]!, used: 0 }
    this.#stores.set(frame >>> 12, store)
    this.#open[index]!.add(store)
    return store
  }
}

const cellSize = (cells: number): number => Math.floor(FRAME_SIZE / cells) & ~1
const isFull = ({ used, cells }: Store): boolean => used === 2 ** cells - 1
