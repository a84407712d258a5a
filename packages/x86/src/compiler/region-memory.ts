/** Regions that were compiled before, in this run or another: they need not be built again (docs/adr/0032). */
import type { CodeMemory } from '@nonroot/contracts'
import type { Block } from '../code/block.ts'
import { keyOf } from '../code/block-key.ts'
import { readRecord, writeRecord } from './region-record.ts'
import type { RegionCode, RegionRequest } from './region-service.ts'

export class RegionMemory {
  readonly #memory: CodeMemory

  constructor(memory: CodeMemory) {
    this.#memory = memory
  }

  /** Whether there may be a region for this block of the code in `bytes`. */
  isKnown(bytes: Uint8Array, block: Block): boolean {
    return this.#memory.has(keyOf(bytes, block.host, block))
  }

  /** `trapped`: rows whose instructions call a hook. What is damaged is not found. */
  find(bytes: Uint8Array, block: Block, trapped: readonly number[]): RegionCode | undefined {
    const { host, mode } = block
    const key = keyOf(bytes, host, block)
    if (!this.#memory.has(key)) return undefined
    const atHand = { bytes, page: (host & -0x1000) >>> 0, entry: host & 0xfff, mode, trapped }
    for (const record of this.#memory.find(key)) {
      try {
        const found = readRecord(record, atHand)
        if (found) return found
      } catch (error) {
        if (!(error instanceof RangeError)) throw error
      }
    }
    return undefined
  }

  add(regions: readonly { readonly block: Block; readonly request: RegionRequest; readonly made: RegionCode }[]): void {
    this.#memory.add(
      regions.map(({ block, request, made }) => ({ key: keyOf(request.bytes, request.entry, block), bytes: writeRecord(request, made) })),
    )
  }
}
