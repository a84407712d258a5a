/**
 * References to frames and their uses: what makes a frame a table, and what ends it. A table is validated when its use begins, every entry of it taking a
 * reference; all are dropped when the use ends. So a reference to a root vouches for everything below. @hot
 */

import { FRAME_SHIFT, FRAME_SIZE, FRAME_USE, hpa, PAGE_ENTRY } from '@nonroot/contracts'
import type { FrameUse, HostMemory, TableLevel, TableStatus } from '@nonroot/contracts'
import { checkedDescriptor } from './descriptors.ts'
import type { FrameTable } from './frame-table.ts'
import { ENTRIES, FORBIDDEN_HIGH, FORBIDDEN_LOW, HIGH, isOwnSlot, type Rule } from './rules.ts'

/** What happens outside when uses change. */
export interface UseEvents {
  refuse(rule: Rule): void
  /** The frame was writable and no longer is: translations that allow it must go, now. */
  flush(): void
  /** Fills the hypervisor's slots of a new root, or clears them. */
  own(frame: number, on: boolean): void
  /** The last reference is gone. */
  free(frame: number): void
  validated(level: number, entries: number): void
}

/** Entries hold frame numbers of 40 bits; hosts have far fewer. */
export const frameOfEntry = (low: number, high: number): number =>
  (low >>> FRAME_SHIFT) + (high & HIGH.address) * 0x10_0000

export class FrameUses {
  readonly domain: number
  readonly #frames: FrameTable
  readonly #host: HostMemory
  readonly #words: Int32Array
  readonly #events: UseEvents

  constructor(domain: number, frames: FrameTable, host: HostMemory, events: UseEvents) {
    this.domain = domain
    this.#frames = frames
    this.#host = host
    this.#words = host.words
    this.#events = events
  }

  /** A reference and a use of that kind. */
  take(frame: number, use: FrameUse): TableStatus {
    const frames = this.#frames
    if (frame >= frames.length) return this.#refused('frame', 'invalid')
    if (frames.owner[frame] !== this.domain) return this.#refused('owner', 'denied')
    if (frames.uses[frame]! > 0) {
      if (frames.use[frame] !== use) return this.#refused('use', 'busy')
    } else if (frames.use[frame] !== use || use !== FRAME_USE.writable) {
      const status = this.#begin(frame, use)
      if (status !== 'ok') return status
    }
    frames.uses[frame]!++
    frames.references[frame]!++
    return 'ok'
  }

  /** The use is claimed before anything else sees the frame, then stale translations go, then its content is judged. */
  #begin(frame: number, use: FrameUse): TableStatus {
    const frames = this.#frames
    const before = frames.use[frame]!
    frames.use[frame] = use
    if (use === FRAME_USE.writable) return 'ok'
    frames.uses[frame] = 1
    if (before === FRAME_USE.writable) this.#events.flush()
    const status =
      use === FRAME_USE.descriptors ? this.#auditDescriptors(frame) : this.#validate(frame, use as TableLevel)
    frames.uses[frame] = 0
    if (status !== 'ok') frames.use[frame] = FRAME_USE.none
    return status
  }

  drop(frame: number): void {
    const frames = this.#frames
    const use = frames.use[frame]!
    if (--frames.uses[frame]! === 0 && use <= FRAME_USE.level4) {
      this.#devalidate(frame, use as TableLevel, ENTRIES)
      frames.use[frame] = FRAME_USE.none
    }
    this.dropReference(frame)
  }

  takeReference(frame: number): TableStatus {
    if (frame >= this.#frames.length) return this.#refused('frame', 'invalid')
    if (this.#frames.owner[frame] !== this.domain) return this.#refused('owner', 'denied')
    this.#frames.references[frame]!++
    return 'ok'
  }
  dropReference(frame: number): void {
    if (--this.#frames.references[frame]! === 0) this.#events.free(frame)
  }

  // Entries

  /** What a present entry of a table needs of the frame it names. */
  takeEntry(level: TableLevel, low: number, high: number): TableStatus {
    if (!(low & PAGE_ENTRY.present)) return 'ok'
    if (low & FORBIDDEN_LOW[level]! || high & FORBIDDEN_HIGH) return this.#refused('flags', 'invalid')
    const frame = frameOfEntry(low, high)
    if (level > 1) return this.take(frame, (level - 1) as FrameUse)
    return low & PAGE_ENTRY.writable ? this.take(frame, FRAME_USE.writable) : this.takeReference(frame)
  }
  dropEntry(level: TableLevel, low: number, high: number): void {
    if (!(low & PAGE_ENTRY.present)) return
    const frame = frameOfEntry(low, high)
    if (level > 1 || low & PAGE_ENTRY.writable) this.drop(frame)
    else this.dropReference(frame)
  }

  #validate(frame: number, level: TableLevel): TableStatus {
    const words = this.#words
    const start = frame << 10
    for (let index = 0; index < ENTRIES; index++) {
      if (level === 4 && isOwnSlot(index)) continue
      const at = start + index * 2
      const low = words[at]!
      const high = words[at + 1]!
      if (!(low & PAGE_ENTRY.present)) continue
      const status = this.takeEntry(level, low, high)
      if (status !== 'ok') {
        this.#devalidate(frame, level, index)
        this.#host.noteWrite(hpa(frame * FRAME_SIZE), FRAME_SIZE)
        return status
      }
      words[at] = adjustedLow(low)
      words[at + 1] = adjustedHigh(level, low, high)
    }
    if (level === 4) this.#events.own(frame, true)
    // Code that was decoded from here is none any more.
    this.#host.noteWrite(hpa(frame * FRAME_SIZE), FRAME_SIZE)
    this.#events.validated(level, ENTRIES)
    return 'ok'
  }

  /** Gives back what the first `count` entries took. */
  #devalidate(frame: number, level: TableLevel, count: number): void {
    const words = this.#words
    const start = frame << 10
    for (let index = 0; index < count; index++) {
      if (level === 4 && isOwnSlot(index)) continue
      this.dropEntry(level, words[start + index * 2]!, words[start + index * 2 + 1]!)
    }
    if (level === 4 && count === ENTRIES) this.#events.own(frame, false)
  }

  #auditDescriptors(frame: number): TableStatus {
    const words = this.#words
    const start = frame << 10
    for (let at = start; at < start + ENTRIES * 2; at += 2) {
      if (checkedDescriptor(words[at + 1]!) === undefined) return this.#refused('descriptor', 'invalid')
    }
    for (let at = start; at < start + ENTRIES * 2; at += 2) words[at + 1] = checkedDescriptor(words[at + 1]!)!
    this.#host.noteWrite(hpa(frame * FRAME_SIZE), FRAME_SIZE)
    return 'ok'
  }

  #refused(rule: Rule, status: TableStatus): TableStatus {
    this.#events.refuse(rule)
    return status
  }
}

/** Both modes of the guest run at CPL 3, so each page is a user page; which were meant to be is marked by bit 52. */
export const adjustedLow = (low: number): number => low | PAGE_ENTRY.user
export const adjustedHigh = (level: number, low: number, high: number): number =>
  level === 1 && !(low & PAGE_ENTRY.user) ? high | HIGH.kernelOnly : high
