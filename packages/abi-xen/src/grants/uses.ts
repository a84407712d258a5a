/**
 * Which entries of a grant table are in use, and how often. The first use takes frame and domain from the entry: what the guest writes there later changes
 * nothing until the last use ends. (Xen, "public/grant_table.h")
 */

import type { DomainFrames } from '../frames.ts'
import { ENTRY, STATUS, type GrantStatus } from './facts.ts'
import type { GrantTable } from './table.ts'

/** Uses of one entry at a time: far more than drivers have, and no count overflows. */
const MOST_USES = 255
const PAGE = 4096

interface Use {
  readonly domain: number
  readonly frame: number
  /** The part of the page that the entry grants. */
  readonly start: number
  readonly length: number
  readers: number
  writers: number
}

export class GrantUses {
  readonly #table: GrantTable
  readonly #frames: DomainFrames
  readonly #uses = new Map<number, Use>()

  constructor(table: GrantTable, frames: DomainFrames) {
    this.#table = table
    this.#frames = frames
  }

  /** Entries in use. */
  get count(): number {
    return this.#uses.size
  }

  isUsed(reference: number): boolean {
    return this.#uses.has(reference)
  }
  isAnyUsed(from: number): boolean {
    for (const reference of this.#uses.keys()) if (reference >= from) return true
    return false
  }
  /** Whether these bytes of its page are granted by an entry in use: as it was when its use began. */
  covers(reference: number, start: number, length: number): boolean {
    const use = this.#uses.get(reference)
    return use !== undefined && start >= use.start && start + length <= use.start + use.length
  }

  /**
   * A use by a domain, which also keeps the frame in place. The frame, or why not: then nothing changed. `isCopy`: `covers` is asked before any byte is
   * touched, so that an entry for a part of a page will do.
   */
  begin(
    reference: number,
    domain: number,
    writable: boolean,
    isCopy = false,
  ): number | { readonly status: GrantStatus } {
    const entry = this.#table.entry(reference)
    if (entry === undefined) return { status: STATUS.badReference }
    const use = this.#uses.get(reference)
    if (use && (use.domain !== domain || use.readers + use.writers >= MOST_USES)) return { status: STATUS.general }
    if (!use || (writable && use.writers === 0)) {
      const { flags } = entry
      if ((flags & ENTRY.type) !== ENTRY.permitAccess || entry.domain !== domain) return { status: STATUS.general }
      if (writable && flags & ENTRY.readOnly) return { status: STATUS.general }
    }
    const { frame, start, length } = use ?? entry
    if (!isCopy && length < PAGE) return { status: STATUS.general }
    if (this.#frames.hold(frame, writable) !== 'ok') return { status: STATUS.general }
    const now = use ?? { domain, frame, start, length, readers: 0, writers: 0 }
    this.#uses.set(reference, now)
    if (writable) now.writers++
    else now.readers++
    this.#table.mark(reference, ENTRY.reading | (writable ? ENTRY.writing : 0), 0)
    return frame
  }

  /** The entry's flags say so when its last writer, and its last use, has ended. */
  end(reference: number, writable: boolean): void {
    const use = this.#uses.get(reference)
    if (!use) return
    this.#frames.release(use.frame, writable)
    if (writable) use.writers--
    else use.readers--
    const isFree = use.readers + use.writers === 0
    if (use.writers === 0) this.#table.mark(reference, 0, ENTRY.writing | (isFree ? ENTRY.reading : 0))
    if (isFree) this.#uses.delete(reference)
  }

  /** The domain's frames are held by no one any more. */
  reset(): void {
    this.#uses.clear()
  }
}
