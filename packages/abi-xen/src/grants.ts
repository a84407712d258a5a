/** Grant table of one domain, version 1: frames in which the guest grants access to its pages. (Xen, "public/grant_table.h") */

import type { HostMemory, Hpa } from '@nonroot/contracts'
import type { DomainFrames } from './frames.ts'

export const MOST_FRAMES = 64
const ENTRY = 8
const PERMIT_ACCESS = 1
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
    const at = this.#frames[0]! + entry * ENTRY
    this.#host.view.setUint16(at, PERMIT_ACCESS, true)
    this.#host.view.setUint16(at + 2, 0, true)
    this.#host.view.setUint32(at + 4, frame, true)
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
