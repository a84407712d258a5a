/** Grant table of one domain, version 1: frames in which the guest grants access to its pages. (Xen, "public/grant_table.h") */

import type { HostMemory, Hpa } from '@nonroot/contracts'
import type { DomainFrames } from '../frames.ts'
import { ENTRY } from './facts.ts'

export const MOST_FRAMES = 64
const ENTRIES = 4096 / ENTRY.bytes
/** Entries that the toolstack fills in. */
export const RESERVED = { console: 0, store: 1 } as const

export class GrantTable {
  readonly #host: HostMemory
  readonly #guest: Pick<DomainFrames, 'shareFrame'>
  /** Where each frame of the table is, and the host's frame that is kept for it. */
  readonly #frames: Hpa[] = []
  readonly #own: Hpa[] = []
  #inUse = 0

  constructor(host: HostMemory, guest: Pick<DomainFrames, 'shareFrame'>) {
    this.#host = host
    this.#guest = guest
  }

  get frameCount(): number {
    return this.#inUse
  }

  /** Machine frames of the first `count` frames of the table, or undefined: the host has none. */
  setup(count: number): number[] | undefined {
    while (this.#frames.length < count) {
      const frame = this.#host.allocateFrame()
      if (frame === undefined) return undefined
      this.#guest.shareFrame(frame)
      this.#frames.push(frame)
      this.#own.push(frame)
    }
    this.#inUse = Math.max(this.#inUse, count)
    return this.#frames.slice(0, count).map((frame) => frame >>> 12)
  }

  /** Let domain 0 reach a frame. */
  seed(entry: number, frame: number): void {
    this.setup(1)
    const at = this.#at(entry)!
    this.#host.view.setUint16(at, ENTRY.permitAccess, true)
    this.#host.view.setUint16(at + 2, 0, true)
    this.#host.view.setUint32(at + 4, frame, true)
  }

  /** Host address of an entry. Undefined: the table has no such one. */
  #at(reference: number): number | undefined {
    return reference < this.#inUse * ENTRIES
      ? this.#frames[Math.floor(reference / ENTRIES)]! + (reference % ENTRIES) * ENTRY.bytes
      : undefined
  }

  /** As the guest has it now: it may change at any time. */
  entry(reference: number): { readonly flags: number; readonly domain: number; readonly frame: number } | undefined {
    const at = this.#at(reference)
    if (at === undefined) return undefined
    const { view } = this.#host
    return {
      flags: view.getUint16(at, true),
      domain: view.getUint16(at + 2, true),
      frame: view.getUint32(at + 4, true),
    }
  }
  setFlags(reference: number, set: number, cleared: number): void {
    const at = this.#at(reference)!
    this.#host.view.setUint16(at, (this.#host.view.getUint16(at, true) | set) & ~cleared, true)
  }
  setFrame(reference: number, frame: number): void {
    this.#host.view.setUint32(this.#at(reference)! + 4, frame, true)
  }
  swap(one: number, other: number): void {
    const { view } = this.#host
    const [first, second] = [this.#at(one)!, this.#at(other)!]
    const kept = view.getBigUint64(first, true)
    view.setBigUint64(first, view.getBigUint64(second, true), true)
    view.setBigUint64(second, kept, true)
  }

  /** A frame of the table is at another host address from now on. */
  move(index: number, to: Hpa): void {
    const from = this.#frames[index]!
    this.#host.bytes.copyWithin(to, from, from + 4096)
    this.#frames[index] = to
  }

  reset(): void {
    this.#own.forEach((frame, n) => (this.#frames[n] = frame))
    for (const frame of this.#frames) this.#host.bytes.fill(0, frame, frame + 4096)
    this.#inUse = 0
  }

  dispose(): void {
    for (const frame of this.#own.splice(0)) this.#host.freeFrame(frame)
    this.#frames.length = 0
  }
}
