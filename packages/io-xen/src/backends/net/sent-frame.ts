/** The slots that make up one frame of the guest's: taken from the ring, their data gathered, and answered. (Xen, "public/io/netif.h") @hot */

import { createFrameWork, LONGEST_FRAME } from '@nonroot/contracts'
import type { DmaMemory, GrantAccess } from '@nonroot/contracts'
import {
  EXTRA,
  EXTRA_MORE,
  EXTRA_TYPE,
  MOST_EXTRAS,
  MOST_SLOTS,
  SEGMENT_TYPE,
  TX,
  TX_FLAG,
  TX_RESPONSE,
  TX_RESPONSE_SIZE,
  TX_SIZE,
  TX_STATUS,
} from './format.ts'
import type { BackRing } from '../ring.ts'

const PAGE = 4096

export class SentFrame {
  readonly work = createFrameWork()
  length = 0
  readonly #memory: DmaMemory
  readonly #bytes = new Uint8Array(LONGEST_FRAME)
  readonly #slot = new Uint8Array(TX_SIZE)
  readonly #slotView = new DataView(this.#slot.buffer)
  readonly #extra = new Uint8Array(TX_SIZE)
  readonly #extraView = new DataView(this.#extra.buffer)
  readonly #answer = new Uint8Array(TX_RESPONSE_SIZE)
  readonly #answerView = new DataView(this.#answer.buffer)
  /** Slots with data: reference, offset, size, identification. And how many extra ones the frame has. */
  readonly #slots = new Uint32Array(MOST_SLOTS * 4)
  #slotCount = 0
  #extraCount = 0

  constructor(memory: DmaMemory) {
    this.#memory = memory
  }

  get bytes(): Uint8Array {
    return this.#bytes.subarray(0, this.length)
  }

  /** The slots of the next frame. `none`: there is none. `broken`: they make no sense. */
  take(ring: BackRing): 'ok' | 'none' | 'broken' {
    return !ring.take(this.#slot) ? 'none' : this.#collect(ring) ? 'ok' : 'broken'
  }

  /** The slots of the frame that `#slot` begins. */
  #collect(ring: BackRing): boolean {
    const view = this.#slotView
    const { work } = this
    work.checksumStart = -1
    work.segmentSize = work.segmentIp = 0
    const first = view.getUint16(TX.flags, true)
    const length = view.getUint16(TX.size, true)
    this.#slotCount = this.#extraCount = 0
    this.#note()
    if (first & TX_FLAG.extra && !this.#collectExtras(ring)) return false
    let rest = 0
    for (let flags = first; flags & TX_FLAG.moreData; flags = view.getUint16(TX.flags, true)) {
      if (this.#slotCount === MOST_SLOTS || !ring.take(this.#slot)) return false
      rest += view.getUint16(TX.size, true)
      this.#note()
    }
    // The first slot has the size of the whole.
    if (rest > 0 && rest >= length) return false
    this.#slots[2] = length - rest
    this.length = length
    if (first & TX_FLAG.needsChecksum) work.checksumStart = 0
    return true
  }

  #note(): void {
    const view = this.#slotView
    const at = this.#slotCount++ * 4
    this.#slots[at] = view.getUint32(TX.reference, true)
    this.#slots[at + 1] = view.getUint16(TX.offset, true)
    this.#slots[at + 2] = view.getUint16(TX.size, true)
    this.#slots[at + 3] = view.getUint16(TX.id, true)
  }

  #collectExtras(ring: BackRing): boolean {
    const view = this.#extraView
    const { work } = this
    for (let more = true; more;) {
      if (this.#extraCount === MOST_EXTRAS || !ring.take(this.#extra)) return false
      this.#extraCount++
      more = (view.getUint8(EXTRA.flags) & EXTRA_MORE) !== 0
      // Others were not offered.
      if (view.getUint8(EXTRA.type) !== EXTRA_TYPE.segmentation) return false
      const type = view.getUint8(EXTRA.segmentType)
      work.segmentSize = view.getUint16(EXTRA.segmentSize, true)
      work.segmentIp = type === SEGMENT_TYPE.tcp4 ? 4 : type === SEGMENT_TYPE.tcp6 ? 6 : 0
      if (work.segmentSize === 0 || work.segmentIp === 0) return false
    }
    return true
  }

  /** The frame's bytes, out of pages that the guest grants. */
  gather(grants: GrantAccess): boolean {
    const slots = this.#slots
    let done = 0
    for (let n = 0; n < this.#slotCount; n++) {
      const [reference, offset, size] = [slots[n * 4]!, slots[n * 4 + 1]!, slots[n * 4 + 2]!]
      if (offset + size > PAGE) return false
      const page = grants.begin(reference, false)
      if (page === undefined) return false
      this.#memory.readBytes(page + offset, this.#bytes.subarray(done, done + size))
      grants.end(reference, false)
      done += size
    }
    return true
  }

  /** To all slots. */
  answer(ring: BackRing, status: number): void {
    for (let n = 0; n < this.#slotCount; n++) {
      this.#respond(ring, this.#slots[n * 4 + 3]!, status)
      if (n === 0) for (let extra = 0; extra < this.#extraCount; extra++) this.#respond(ring, 0, TX_STATUS.extra)
    }
  }
  #respond(ring: BackRing, id: number, status: number): void {
    const view = this.#answerView
    view.setUint16(TX_RESPONSE.id, id, true)
    view.setInt16(TX_RESPONSE.status, status, true)
    ring.respond(this.#answer)
  }
}
