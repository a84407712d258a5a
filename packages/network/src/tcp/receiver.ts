/** The receiving half of a connection: window, reassembly, what to acknowledge. Independent of the state machine. @hot */

import { LEAST_WINDOW, MOST_WINDOW } from './facts.ts'
import { Ranges } from './ranges.ts'
import { advance, isAtMost, isBefore, span } from './sequence.ts'
import type { Segment } from './segment.ts'

export class Receiver {
  /** Next byte expected: RCV.NXT. */
  next = 0
  /** Of the window as the peer knows it, exclusive. Never goes back: "SHOULD NOT shrink the window". */
  edge = 0
  /** Bits that windows on the wire are shifted by. */
  scale = 0
  /** Bytes that the user was given and has not taken on. */
  untaken = 0
  /** Most bytes that the peer may have on their way to the user. */
  limit = MOST_WINDOW
  mss = LEAST_WINDOW
  /** RCV.NXT as it was last acknowledged. */
  acknowledged = 0
  /** Beyond a hole, in sequence order. */
  readonly ranges = new Ranges()
  /** Where the last segment beyond a hole began: its block is reported first. (RFC 2018) */
  #latest = 0
  /** Bytes beyond a hole, at their sequence number modulo the ring's size: a power of two that holds the window. */
  #ring: Uint8Array | undefined

  /** The window that goes out with a segment that acknowledges, scaled; from then on the peer may count on it. */
  takeWindow(scaled: boolean): number {
    const scale = scaled ? this.scale : 0
    const edge = this.#wantedEdge()
    const units = Math.min(0xffff, (span(this.next, edge) + (1 << scale) - 1) >>> scale)
    const told = advance(this.next, units << scale)
    if (isBefore(this.edge, told)) this.edge = told
    this.acknowledged = this.next
    return units
  }

  /** Small steps are kept back: "the receiver's SWS avoidance algorithm". */
  #wantedEdge(): number {
    const wanted = advance(this.next, Math.max(0, this.limit - this.untaken))
    const step = span(this.edge, wanted)
    return step < Math.min(this.limit >> 1, this.mss) ? this.edge : wanted
  }

  /** "an ACK SHOULD be generated for at least every second full-sized segment" */
  get due(): boolean {
    return span(this.acknowledged, this.next) >= 2 * this.mss
  }

  /** Should the peer be notified that there is more room? */
  get opens(): boolean {
    const step = span(this.edge, this.#wantedEdge())
    return step > 0 && (step >= this.limit >> 2 || span(this.next, this.edge) < this.mss)
  }

  /** "Segment Acceptability Test": is any of it in the window? */
  accepts(sequence: number, length: number): boolean {
    const window = span(this.next, this.edge)
    if (length === 0) return window <= 0 ? sequence === this.next : this.#inside(sequence)
    return window > 0 && (this.#inside(sequence) || this.#inside(advance(sequence, length - 1)))
  }

  #inside(sequence: number): boolean {
    return isAtMost(this.next, sequence) && isBefore(sequence, this.edge)
  }

  /**
   * Take a segment's payload, cut to the window; `deliver` gets what is in order. Gives whether something is still missing, or was there already: the
   * peer is notified at once.
   */
  take(segment: Segment, deliver: (bytes: Uint8Array) => void): boolean {
    let { sequence, payload, length } = segment
    const early = span(sequence, this.next)
    if (early > 0) {
      sequence = this.next
      payload += early
      length -= early
    }
    length = Math.min(length, span(sequence, this.edge))
    if (length <= 0) return true
    if (sequence !== this.next) {
      this.#keep(sequence, segment.bytes, payload, length)
      return true
    }
    this.next = advance(sequence, length)
    deliver(segment.bytes.subarray(payload, payload + length))
    if (this.ranges.count === 0) return early > 0
    this.#deliverKept(deliver)
    return true
  }

  #keep(sequence: number, bytes: Uint8Array, payload: number, length: number): void {
    if (!this.ranges.add(sequence, advance(sequence, length))) return
    this.#latest = sequence
    // What a window was rounded up to fits in twice its size.
    const ring = (this.#ring ??= new Uint8Array(2 ** Math.ceil(Math.log2(2 * this.limit))))
    const at = sequence & (ring.length - 1)
    const first = Math.min(length, ring.length - at)
    ring.set(bytes.subarray(payload, payload + first), at)
    if (first < length) ring.set(bytes.subarray(payload + first, payload + length), 0)
  }

  #deliverKept(deliver: (bytes: Uint8Array) => void): void {
    const { ranges } = this
    ranges.dropBefore(this.next)
    if (ranges.count > 0 && ranges.start(0) === this.next) {
      const end = ranges.end(0)
      const ring = this.#ring!
      const length = span(this.next, end)
      const at = this.next & (ring.length - 1)
      const first = Math.min(length, ring.length - at)
      this.next = end
      ranges.dropBefore(end)
      deliver(ring.subarray(at, at + first))
      if (first < length) deliver(ring.subarray(0, length - first))
    }
    if (ranges.count === 0) this.#ring = undefined
  }

  /** Write SACK blocks, the latest first. Gives how many. */
  sackBlocks(into: Uint32Array, most: number): number {
    const { ranges } = this
    const latest = ranges.find(this.#latest)
    let count = 0
    for (let step = -1; step < ranges.count && count < most; step++) {
      const index = step < 0 ? latest : step
      if (index < 0 || (step >= 0 && index === latest)) continue
      into[2 * count] = ranges.start(index)
      into[2 * count + 1] = ranges.end(index)
      count++
    }
    return count
  }

  clear(): void {
    this.ranges.clear()
    this.#ring = undefined
  }
}
