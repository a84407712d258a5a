/** Maps guest-physical addresses to entries of a frame table and back. @hot */

import { FRAME_SIZE, gpa, invariant } from '@nonroot/contracts'
import type { Gpa, MemoryMap, MemoryRange, MemoryRegion } from '@nonroot/contracts'

/** A region, and where its frames start in the frame table. */
export interface Slot {
  readonly start: number
  readonly end: number
  readonly ram: boolean
  readonly first: number
}

/** Pages that can be added to a machine while it runs. */
export const MOST_ADDED = 128
/** Guest-physical addresses that a second stage of four levels reaches. */
const MOST_ADDRESS = 2 ** 48

export class FrameIndex implements MemoryMap {
  readonly size: number
  readonly regions: readonly MemoryRegion[]
  #slots: Slot[]
  /** Entries of the table. */
  readonly length: number
  /** Of added pages: entry numbers that are free. */
  readonly #spare: number[]
  #last: Slot

  constructor(regions: readonly MemoryRegion[]) {
    this.regions = regions
    let first = 0
    this.#slots = regions.map(({ start, length, kind }) => {
      invariant(length > 0 && length % FRAME_SIZE === 0 && start % FRAME_SIZE === 0, 'a region is whole frames')
      const slot = { start, end: start + length, ram: kind !== 'rom', first }
      first += length / FRAME_SIZE
      return slot
    })
    this.length = first + MOST_ADDED
    this.#spare = Array.from({ length: MOST_ADDED }, (_, n) => this.length - 1 - n)
    this.size = regions.reduce((sum, { kind, length }) => sum + (kind === 'rom' ? 0 : length), 0)
    this.#last = this.#slots[0]!
  }

  get slots(): readonly Slot[] {
    return this.#slots
  }

  /** Makes a slot of one page of RAM. False: something is there, or no entry is free. */
  add(start: number): boolean {
    const first = this.#spare.at(-1)
    const end = start + FRAME_SIZE
    if (first === undefined || start % FRAME_SIZE !== 0 || !(start >= 0 && end <= MOST_ADDRESS)) return false
    if (this.#slots.some((slot) => start < slot.end && end > slot.start)) return false
    this.#spare.pop()
    this.#slots.push({ start, end, ram: true, first })
    return true
  }
  /** Takes away a slot that `add` made. Its entry is empty. */
  remove(slot: Slot): void {
    this.#slots = this.#slots.filter((one) => one !== slot)
    this.#spare.push(slot.first)
    this.#last = this.#slots[0]!
  }
  isAdded(slot: Slot): boolean {
    return slot.first >= this.length - MOST_ADDED
  }

  /** The region that contains the whole range. NaN fails the comparisons; other hostile values fail `isInteger`. */
  find(address: number, length: number): Slot | undefined {
    if (!Number.isInteger(address) || !Number.isInteger(length) || length < 0) return undefined
    const end = address + length
    const last = this.#last
    if (address >= last.start && end <= last.end) return last
    for (const slot of this.slots) {
      if (address >= slot.start && end <= slot.end) return (this.#last = slot)
    }
    return undefined
  }

  entry(slot: Slot, address: number): number {
    return slot.first + Math.floor((address - slot.start) / FRAME_SIZE)
  }

  /** Guest-physical start of an entry's page. */
  addressOf(entry: number): Gpa {
    const slot = this.slots.find(
      ({ first, start, end }) => first <= entry && entry < first + (end - start) / FRAME_SIZE,
    )!
    return gpa(slot.start + (entry - slot.first) * FRAME_SIZE)
  }

  /** Calls `each` for every entry of RAM that is entirely inside the ranges. Ranges may be anything. */
  eachWithin(ranges: readonly MemoryRange[], each: (entry: number, address: number) => void): void {
    for (const { address, length } of ranges) {
      if (!Number.isFinite(address) || !Number.isFinite(length)) continue
      for (const slot of this.slots) {
        if (!slot.ram) continue
        const end = Math.min(address + length, slot.end)
        for (
          let at = Math.max(Math.ceil(address / FRAME_SIZE) * FRAME_SIZE, slot.start);
          at + FRAME_SIZE <= end;
          at += FRAME_SIZE
        )
          each(this.entry(slot, at), at)
      }
    }
  }
}

/** Pages as ranges; adjacent ones are merged. */
export function rangesOf(pages: readonly number[]): MemoryRange[] {
  const ranges: { address: Gpa; length: number }[] = []
  for (const page of pages) {
    const last = ranges.at(-1)
    if (last && last.address + last.length === page) last.length += FRAME_SIZE
    else ranges.push({ address: gpa(page), length: FRAME_SIZE })
  }
  return ranges
}
