/** Grant table of one domain, version 1: frames that the guest writes its permissions into. (Xen, "public/grant_table.h") */

import type { HostMemory, Hpa, TableCalls } from '@nonroot/contracts'

export const MOST_FRAMES = 64
const ENTRY = 8
const PERMIT_ACCESS = 1
/** Entries that the toolstack fills in. */
export const RESERVED = { console: 0, store: 1 } as const

export class GrantTable {
  readonly #host: HostMemory
  readonly #tables: TableCalls
  readonly #frames: Hpa[] = []
  #inUse = 0

  constructor(host: HostMemory, tables: TableCalls) {
    this.#host = host
    this.#tables = tables
  }

  get frameCount(): number {
    return this.#inUse
  }

  /** Machine frames of the first `count` frames of the table, or undefined: the host has none. */
  setup(count: number): number[] | undefined {
    while (this.#frames.length < count) {
      const frame = this.#host.allocateFrame()
      if (frame === undefined) return undefined
      this.#tables.shareFrame(frame)
      this.#frames.push(frame)
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

  reset(): void {
    for (const frame of this.#frames) this.#host.bytes.fill(0, frame, frame + 4096)
    this.#inUse = 0
  }

  dispose(): void {
    for (const frame of this.#frames.splice(0)) this.#host.freeFrame(frame)
  }
}
