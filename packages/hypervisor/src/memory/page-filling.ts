/** Fills parked pages for vCPUs that wait, and waits for frames. */

import { FRAME_MASK, FRAME_SIZE, gpa } from '@nonroot/contracts'
import type { Gpa } from '@nonroot/contracts'
import { lost, type FrameTable, type Parked } from './frame-table.ts'

export class PageFilling {
  readonly #table: FrameTable

  constructor(table: FrameTable) {
    this.#table = table
  }

  ready(address: number): Promise<string | undefined> {
    const { index, parked: pages } = this.#table
    const slot = index.find(address, 1)
    const entry = slot === undefined ? -1 : index.entry(slot, address)
    const parked = pages.get(entry)
    // A filler that delivers at once needs only a frame.
    if (!parked?.filler.fill) return this.#shortage()
    parked.filling ??= this.#fill(entry, parked, gpa(address - (address & FRAME_MASK)))
    return parked.filling
  }

  async #shortage(): Promise<string | undefined> {
    const { onShortage } = this.#table.options
    return onShortage ? onShortage() : this.#table.exhausted
  }

  async #fill(entry: number, parked: Parked, page: Gpa): Promise<string | undefined> {
    const table = this.#table
    let content: Uint8Array
    try {
      content = await parked.filler.fill!(page)
      if (content.length !== FRAME_SIZE) throw new Error(`its content has ${content.length} bytes`)
    } catch (error) {
      parked.filling = undefined
      return table.parked.get(entry) === parked ? lost(page, error) : undefined
    }
    for (;;) {
      // In the meantime a device may have needed the page, or the guest may have released it.
      if (table.parked.get(entry) !== parked) return undefined
      const frame = table.isShort() ? undefined : table.host.allocateFrame()
      if (frame !== undefined) {
        table.host.bytes.set(content, frame)
        table.deliver(entry, frame, page)
        return undefined
      }
      const failure = await this.#shortage()
      if (failure !== undefined) return failure
    }
  }
}
