/** Frames from the network to the guest. @hot */

import type { CableEnd, CardCounters, DmaMemory, FrameOffloads, FrameWork } from '@nonroot/contracts'
import type { Connection } from './connection.ts'
import { EXTRA, EXTRA_TYPE, RX, RX_FLAG, RX_RESPONSE, RX_SIZE, SEGMENT_TYPE, TX_STATUS } from './format.ts'
import type { BackRing } from '../ring.ts'

const PAGE = 4096

export class Receiver {
  readonly #memory: DmaMemory
  readonly #far: CableEnd
  readonly #counters: CardCounters
  readonly #slot = new Uint8Array(RX_SIZE)
  readonly #slotView = new DataView(this.#slot.buffer)
  readonly #answer = new Uint8Array(RX_SIZE)
  readonly #answerView = new DataView(this.#answer.buffer)
  /** The guest had no room for a frame, which the network keeps. */
  #blocked = false

  constructor(memory: DmaMemory, far: CableEnd, counters: CardCounters) {
    this.#memory = memory
    this.#far = far
    this.#counters = counters
  }

  reset(): void {
    this.#blocked = false
  }

  /** False: it has to wait. */
  receive(connection: Connection, frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    if (!fits(connection.offloads, work)) {
      this.#counters.dropped.value++
      return true
    }
    const { receive } = connection
    const needed = Math.ceil(frame.length / PAGE) + (work.segmentSize > 0 ? 1 : 0)
    if (receive.available < needed && !receive.wait(needed)) {
      if (receive.broken) connection.guest.fail('its receiving ring says that it holds more than it can')
      this.#blocked = !receive.broken
      return receive.broken
    }
    this.#spread(connection, frame, work)
    return true
  }

  /** A page for each part; after the first one a slot that says how the frame is to be cut. */
  #spread({ receive, guest: { grants } }: Connection, frame: Uint8Array, work: Readonly<FrameWork>): void {
    const view = this.#answerView
    const slot = this.#slotView
    const partial = work.checksumStart >= 0 ? RX_FLAG.needsChecksum | RX_FLAG.dataValid : 0
    for (let done = 0; done < frame.length; done += PAGE) {
      receive.take(this.#slot)
      const part = frame.subarray(done, Math.min(frame.length, done + PAGE))
      const reference = slot.getUint32(RX.reference, true)
      const page = grants.begin(reference, true)
      if (page !== undefined) {
        this.#memory.writeBytes(page, part)
        grants.end(reference, true)
      }
      const isFirst = done === 0
      const isCut = isFirst && work.segmentSize > 0
      view.setUint16(RX_RESPONSE.id, slot.getUint16(RX.id, true), true)
      view.setUint16(RX_RESPONSE.offset, 0, true)
      view.setUint16(
        RX_RESPONSE.flags,
        (isFirst ? partial : 0) | (done + PAGE < frame.length ? RX_FLAG.moreData : 0) | (isCut ? RX_FLAG.extra : 0),
        true,
      )
      view.setInt16(RX_RESPONSE.status, page === undefined ? TX_STATUS.error : part.length, true)
      receive.respond(this.#answer)
      if (isCut) this.#cut(receive, work)
    }
    this.#counters.received.value++
    this.#counters.bytesReceived.value += frame.length
  }

  #cut(receive: BackRing, work: Readonly<FrameWork>): void {
    const view = this.#answerView
    receive.take(this.#slot)
    this.#answer.fill(0)
    view.setUint8(EXTRA.type, EXTRA_TYPE.segmentation)
    view.setUint16(EXTRA.segmentSize, work.segmentSize, true)
    view.setUint8(EXTRA.segmentType, work.segmentIp === 4 ? SEGMENT_TYPE.tcp4 : SEGMENT_TYPE.tcp6)
    receive.respond(this.#answer)
  }

  /** The guest may have room, or will never take what the network keeps for it. */
  ready(): void {
    if (!this.#blocked) return
    this.#blocked = false
    this.#far.ready()
  }
}

function fits(offloads: FrameOffloads, { checksumStart, segmentSize, segmentIp }: Readonly<FrameWork>): boolean {
  if (checksumStart >= 0 && !offloads.checksum) return false
  return segmentSize === 0 || (segmentIp === 4 ? offloads.segment4 : offloads.segment6)
}
