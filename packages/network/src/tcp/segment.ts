/** A received TCP segment: header fields and options. Independent of the state. @hot */

import { DEFAULT_MSS, LEAST_MSS, MOST_SCALE, Option } from './facts.ts'

export const TCP_HEADER = 20
const MOST_BLOCKS = 4

export class Segment {
  sourcePort = 0
  destinationPort = 0
  sequence = 0
  acknowledgement = 0
  flags = 0
  /** As in the header, not scaled. */
  window = 0
  /** Payload, in `bytes`. */
  bytes: Uint8Array = new Uint8Array(0)
  payload = 0
  length = 0
  // Options
  mss = DEFAULT_MSS
  /** -1: none. */
  windowScale = -1
  sackPermitted = false
  sackBlocks = 0
  readonly sackStarts = new Uint32Array(MOST_BLOCKS)
  readonly sackEnds = new Uint32Array(MOST_BLOCKS)

  /** Bytes from `at` to `end`. False: it is no segment. */
  parse(bytes: Uint8Array, view: DataView, at: number, end: number): boolean {
    if (end - at < TCP_HEADER) return false
    const header = (bytes[at + 12]! >> 4) * 4
    if (header < TCP_HEADER || at + header > end) return false
    this.sourcePort = view.getUint16(at)
    this.destinationPort = view.getUint16(at + 2)
    this.sequence = view.getUint32(at + 4)
    this.acknowledgement = view.getUint32(at + 8)
    this.flags = bytes[at + 13]!
    this.window = view.getUint16(at + 14)
    this.bytes = bytes
    this.payload = at + header
    this.length = end - at - header
    this.#options(bytes, view, at + TCP_HEADER, at + header)
    return true
  }

  /** An option that is cut off, or says it is shorter than it can be, ends them. */
  #options(bytes: Uint8Array, view: DataView, at: number, end: number): void {
    this.mss = DEFAULT_MSS
    this.windowScale = -1
    this.sackPermitted = false
    this.sackBlocks = 0
    while (at < end) {
      const kind = bytes[at]!
      if (kind === Option.end) return
      if (kind === Option.nop) {
        at++
        continue
      }
      const length = at + 1 < end ? bytes[at + 1]! : 0
      if (length < 2 || at + length > end) return
      if (kind === Option.mss && length === 4) this.mss = Math.max(LEAST_MSS, view.getUint16(at + 2))
      else if (kind === Option.windowScale && length === 3) this.windowScale = Math.min(MOST_SCALE, bytes[at + 2]!)
      else if (kind === Option.sackPermitted && length === 2) this.sackPermitted = true
      else if (kind === Option.sack) this.#blocks(view, at + 2, (length - 2) >> 3)
      at += length
    }
  }

  #blocks(view: DataView, at: number, count: number): void {
    this.sackBlocks = Math.min(count, MOST_BLOCKS)
    for (let index = 0; index < this.sackBlocks; index++) {
      this.sackStarts[index] = view.getUint32(at + 8 * index)
      this.sackEnds[index] = view.getUint32(at + 8 * index + 4)
    }
  }
}
