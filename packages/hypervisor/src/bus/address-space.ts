/** Memory-mapped registers: finds the device at a guest-physical address. The last hit is tried first. @hot */

import type { ClaimedRegion } from './io-region.ts'

/** An address range of one region. No two overlap. */
interface Span {
  readonly start: number
  readonly end: number
  readonly region: ClaimedRegion
}

export class AddressSpace {
  readonly regions: ClaimedRegion[] = []
  #spans: readonly Span[] = []
  #last: Span | undefined

  /** Sorts again. Where ranges that a guest moved overlap, the earlier claim wins. */
  update(): void {
    const spans: Span[] = []
    for (const region of this.regions) {
      if (!region.enabled) continue
      let start = region.base
      const end = region.base + region.length
      for (const taken of spans.filter((span) => span.start < end && span.end > start)) {
        if (taken.start > start) spans.push({ start, end: taken.start, region })
        start = Math.max(start, taken.end)
      }
      if (start < end) spans.push({ start, end, region })
      spans.sort((left, right) => left.start - right.start)
    }
    this.#spans = spans
    this.#last = undefined
  }

  find(address: number): ClaimedRegion | undefined {
    const last = this.#last
    if (last !== undefined && address >= last.start && address < last.end) return last.region
    const spans = this.#spans
    let low = 0
    let high = spans.length
    while (low < high) {
      const middle = (low + high) >> 1
      if (spans[middle]!.end <= address) low = middle + 1
      else high = middle
    }
    const span = spans[low]
    if (span === undefined || address < span.start) return undefined
    this.#last = span
    return span.region
  }
}
