/** Numbers the pages of a machine's RAM from 0, without the holes of its memory map. */

import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type { Gpa, MemoryMap } from '@nonroot/contracts'

interface Stretch {
  readonly start: number
  readonly end: number
  /** Number of its first page. */
  readonly first: number
}

export class Pages {
  readonly count: number
  readonly #stretches: readonly Stretch[]

  constructor({ regions }: Pick<MemoryMap, 'regions'>) {
    const stretches: Stretch[] = []
    let first = 0
    for (const { start, length, kind } of regions) {
      if (kind === 'rom') continue
      stretches.push({ start, end: start + length, first })
      first += length / FRAME_SIZE
    }
    this.#stretches = stretches
    this.count = first
  }

  /** The address of a page, which must be below `count`. */
  addressOf(page: number): Gpa {
    let at = this.#stretches.length - 1
    while (this.#stretches[at]!.first > page) at--
    const { start, first } = this.#stretches[at]!
    return gpa(start + (page - first) * FRAME_SIZE)
  }

  /** The page of an address in RAM. */
  pageOf(address: number): number {
    const { start, first } = this.#stretches.find(({ end }) => address < end)!
    return first + Math.floor((address - start) / FRAME_SIZE)
  }
}
