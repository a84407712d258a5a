/** Every machine frame: whose it is, how often it is referred to, what it is used as. One for a host. */

import { FRAME_SHIFT, FRAME_USE } from '@nonroot/contracts'
import type { FrameUse, HostMemory } from '@nonroot/contracts'

export const FRAME_FLAG = { pinned: 1, allocated: 2 } as const

/** Index: machine frame number, which is the host address without its offset. */
export class FrameTable {
  readonly length: number
  /** Domain, 0 none. */
  readonly owner: Uint16Array
  /** All references, those of uses among them. Above 0 exactly where there is an owner. */
  readonly references: Uint32Array
  readonly use: Uint8Array
  /** A use changes at 0 only; what it was before then says whether a TLB may still allow writes. */
  readonly uses: Uint32Array
  readonly flags: Uint8Array
  #domains = 0

  constructor(length: number) {
    this.length = length
    this.owner = new Uint16Array(length)
    this.references = new Uint32Array(length)
    this.use = new Uint8Array(length)
    this.uses = new Uint32Array(length)
    this.flags = new Uint8Array(length)
  }

  newDomain(): number {
    return ++this.#domains
  }

  isOwned(frame: number, domain: number): boolean {
    return frame < this.length && this.owner[frame] === domain
  }
  has(frame: number, use: FrameUse): boolean {
    return this.use[frame] === use && this.uses[frame]! > 0
  }

  assign(frame: number, domain: number): void {
    this.owner[frame] = domain
    this.references[frame] = 1
    this.use[frame] = FRAME_USE.none
    this.uses[frame] = 0
    this.flags[frame] = FRAME_FLAG.allocated
  }
  forget(frame: number): void {
    this.owner[frame] = 0
    this.references[frame] = 0
    this.use[frame] = FRAME_USE.none
    this.uses[frame] = 0
    this.flags[frame] = 0
  }
}

const tables = new WeakMap<HostMemory, FrameTable>()

export function frameTableOf(host: HostMemory): FrameTable {
  let table = tables.get(host)
  if (!table) tables.set(host, (table = new FrameTable(host.bytes.length >>> FRAME_SHIFT)))
  return table
}
