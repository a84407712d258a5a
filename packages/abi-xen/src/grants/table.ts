/** Grant table of one domain: frames in which the guest grants access to its pages, laid out by version 1 or 2. (Xen, "public/grant_table.h") */

import type { HostMemory, Hpa } from '@nonroot/contracts'
import type { DomainFrames } from '../frames.ts'
import { toNumber } from '../numbers.ts'
import { ENTRY, LAYOUT, STATUS_BYTES, type GrantVersion } from './facts.ts'

const PAGE = 4096
export const MOST_FRAMES = 64
/** Entries that the toolstack fills in; they outlive a change of the version. */
export const RESERVED = { console: 0, store: 1 } as const
export const RESERVED_ENTRIES = 8
const STATUSES = PAGE / STATUS_BYTES

/** `start`, `length`: the part of the page that is granted. */
export interface GrantEntry {
  readonly flags: number
  readonly domain: number
  readonly frame: number
  readonly start: number
  readonly length: number
}

export class GrantTable {
  readonly #host: HostMemory
  readonly #guest: Pick<DomainFrames, 'shareFrame'>
  /** Where each frame of the table is, and the host's frame that is kept for it. */
  readonly #frames: Hpa[] = []
  readonly #own: Hpa[] = []
  /** Marks of uses, of version 2. The guest may have them mapped: they are the domain's to its end, whatever the version. (XSA-255, XSA-384) */
  readonly #statuses: Hpa[] = []
  #inUse = 0
  #version: GrantVersion = 1

  constructor(host: HostMemory, guest: Pick<DomainFrames, 'shareFrame'>) {
    this.#host = host
    this.#guest = guest
  }

  get version(): GrantVersion {
    return this.#version
  }
  get frameCount(): number {
    return this.#inUse
  }
  /** One for eight frames of the table. */
  get statusCount(): number {
    return this.#version === 1 ? 0 : Math.ceil((this.#inUse * (PAGE / LAYOUT[2].bytes)) / STATUSES)
  }

  /** Machine frames of the first `count` frames of the table, or undefined: the host has none. */
  setup(count: number): number[] | undefined {
    while (this.#frames.length < count) {
      const frame = this.#share()
      if (frame === undefined) return undefined
      this.#frames.push(frame)
      this.#own.push(frame)
    }
    const before = this.#inUse
    this.#inUse = Math.max(before, count)
    if (!this.#growStatuses()) {
      this.#inUse = before
      return undefined
    }
    return this.#frames.slice(0, count).map((frame) => frame >>> 12)
  }
  #growStatuses(): boolean {
    while (this.#statuses.length < this.statusCount) {
      const frame = this.#share()
      if (frame === undefined) return false
      this.#statuses.push(frame)
    }
    return true
  }
  #share(): Hpa | undefined {
    const frame = this.#host.allocateFrame()
    if (frame === undefined) return undefined
    this.#host.bytes.fill(0, frame, frame + PAGE)
    this.#guest.shareFrame(frame)
    return frame
  }

  /** Machine frames with marks, or undefined: there are not so many. (XSA-382) */
  statusFrames(count: number): number[] | undefined {
    return count > this.statusCount ? undefined : this.#statuses.slice(0, count).map((frame) => frame >>> 12)
  }

  /**
   * The reserved entries stay as they are; all others are gone. Nothing changed where the host has no frame for marks, or an entry is of a kind that the
   * other version has not.
   */
  setVersion(version: GrantVersion): 'ENOMEM' | 'ERANGE' | undefined {
    const kept = Array.from({ length: RESERVED_ENTRIES }, (_, reference) => this.entry(reference))
    const isPlain = (flags: number): boolean => (flags & ENTRY.type) <= ENTRY.acceptTransfer && !(flags & ENTRY.subPage)
    if (version === 1 && !kept.every((entry) => !entry || isPlain(entry.flags))) return 'ERANGE'
    const before = this.#version
    this.#version = version
    if (!this.#growStatuses()) {
      this.#version = before
      return 'ENOMEM'
    }
    this.#clear()
    kept.forEach((entry, reference) => {
      if (!entry) return
      const marks = entry.flags & (ENTRY.reading | ENTRY.writing)
      this.#write(reference, version === 1 ? entry.flags : entry.flags & ~marks, entry.domain, entry.frame)
      if (version === 2) this.mark(reference, marks, 0)
    })
    return undefined
  }

  /** Let domain 0 reach a frame. */
  seed(reference: number, frame: number): void {
    this.setup(1)
    this.#write(reference, ENTRY.permitAccess, 0, frame)
  }
  #write(reference: number, flags: number, domain: number, frame: number): void {
    const at = this.#at(reference)!
    this.#host.view.setUint16(at, flags, true)
    this.#host.view.setUint16(at + 2, domain, true)
    this.setFrame(reference, frame)
  }

  /** Host address of an entry. Undefined: the table has no such one. */
  #at(reference: number): number | undefined {
    const { bytes } = LAYOUT[this.#version]
    const each = PAGE / bytes
    return reference < this.#inUse * each
      ? this.#frames[Math.floor(reference / each)]! + (reference % each) * bytes
      : undefined
  }
  #statusAt(reference: number): number {
    return this.#statuses[Math.floor(reference / STATUSES)]! + (reference % STATUSES) * STATUS_BYTES
  }

  /** As the guest has it now: it may change at any time. Flags have the marks of uses, wherever those are. */
  entry(reference: number): GrantEntry | undefined {
    const at = this.#at(reference)
    if (at === undefined) return undefined
    const { view } = this.#host
    const flags = view.getUint16(at, true)
    const domain = view.getUint16(at + 2, true)
    if (this.#version === 1)
      return { flags, domain, frame: view.getUint32(at + LAYOUT[1].frame, true), start: 0, length: PAGE }
    const { frame, start, length } = LAYOUT[2]
    const isPart = (flags & ENTRY.subPage) !== 0
    return {
      flags: flags | view.getUint16(this.#statusAt(reference), true),
      domain,
      frame: toNumber(view.getBigUint64(at + frame, true)),
      start: isPart ? view.getUint16(at + start, true) : 0,
      length: isPart ? view.getUint16(at + length, true) : PAGE,
    }
  }
  /** Marks of uses. */
  mark(reference: number, set: number, cleared: number): void {
    this.#setBits(this.#version === 1 ? this.#at(reference)! : this.#statusAt(reference), set, cleared)
  }
  setFlags(reference: number, set: number): void {
    this.#setBits(this.#at(reference)!, set, 0)
  }
  #setBits(at: number, set: number, cleared: number): void {
    const { view } = this.#host
    view.setUint16(at, (view.getUint16(at, true) | set) & ~cleared, true)
  }
  setFrame(reference: number, frame: number): void {
    const at = this.#at(reference)!
    if (this.#version === 1) this.#host.view.setUint32(at + LAYOUT[1].frame, frame, true)
    else this.#host.view.setBigUint64(at + LAYOUT[2].frame, BigInt(frame), true)
  }
  swap(one: number, other: number): void {
    const { bytes } = this.#host
    const [first, second] = [this.#at(one)!, this.#at(other)!]
    const size = LAYOUT[this.#version].bytes
    const kept = bytes.slice(first, first + size)
    bytes.copyWithin(first, second, second + size)
    bytes.set(kept, second)
  }

  /** A frame of the table is at another host address from now on. */
  move(index: number, to: Hpa): void {
    const from = this.#frames[index]!
    this.#host.bytes.copyWithin(to, from, from + PAGE)
    this.#frames[index] = to
  }

  reset(): void {
    this.#own.forEach((frame, n) => (this.#frames[n] = frame))
    this.#clear()
    this.#inUse = 0
    this.#version = 1
  }
  #clear(): void {
    for (const frame of [...this.#frames, ...this.#statuses]) this.#host.bytes.fill(0, frame, frame + PAGE)
  }

  dispose(): void {
    for (const frame of [...this.#own.splice(0), ...this.#statuses.splice(0)]) this.#host.freeFrame(frame)
    this.#frames.length = 0
  }
}
