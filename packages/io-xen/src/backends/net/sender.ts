/** Frames from the guest to the network. @hot */

import { SHORTEST_FRAME } from '@nonroot/contracts'
import type { CableEnd, CardCounters, DmaMemory } from '@nonroot/contracts'
import { findChecksum } from './checksum.ts'
import type { Connection } from './connection.ts'
import { TX_STATUS } from './format.ts'
import { SentFrame } from './sent-frame.ts'

export class Sender {
  readonly #far: CableEnd
  readonly #isUp: () => boolean
  readonly #counters: CardCounters
  readonly #frame: SentFrame
  /** The network had no room for the frame. */
  #blocked = false

  constructor(memory: DmaMemory, far: CableEnd, isUp: () => boolean, counters: CardCounters) {
    this.#frame = new SentFrame(memory)
    this.#far = far
    this.#isUp = isUp
    this.#counters = counters
  }

  reset(): void {
    this.#blocked = false
  }

  process(connection: Connection): void {
    if (this.#blocked) return
    const { send, sendPort, guest } = connection
    const frame = this.#frame
    do {
      for (let taken = frame.take(send); taken !== 'none'; taken = frame.take(send)) {
        if (taken === 'broken') return guest.fail('a frame whose slots make no sense')
        if (!this.#transmit(connection)) break
      }
      if (send.broken) return guest.fail('its sending ring says that it holds more than it can')
    } while (!this.#blocked && send.wait())
    if (send.push()) sendPort.notify()
    this.#far.flush()
  }

  /** The network has room again. */
  ready(connection: Connection | undefined): void {
    if (!this.#blocked) return
    this.#blocked = false
    if (connection && this.#offer(connection)) this.process(connection)
  }

  /** False: the network has no room, and the frame waits. */
  #transmit(connection: Connection): boolean {
    const frame = this.#frame
    if (!frame.gather(connection.guest.grants)) this.#drop(connection, TX_STATUS.error)
    else if (!this.#isUp() || !this.#understand(frame.bytes)) this.#drop(connection, TX_STATUS.dropped)
    else return this.#offer(connection)
    return true
  }
  #drop({ send }: Connection, status: number): void {
    this.#counters.dropped.value++
    this.#frame.answer(send, status)
  }

  #offer({ send }: Connection): boolean {
    const frame = this.#frame
    this.#blocked = !this.#far.receive(frame.bytes, frame.work)
    if (this.#blocked) return false
    this.#counters.sent.value++
    this.#counters.bytesSent.value += frame.length
    frame.answer(send, TX_STATUS.ok)
    return true
  }

  /** What the slots left to do. False: it makes no sense, or the network does not do it. */
  #understand(frame: Uint8Array): boolean {
    const { work } = this.#frame
    const { checksum, segment4, segment6 } = this.#far.offloads
    if (frame.length < SHORTEST_FRAME) return false
    if (work.checksumStart >= 0 && !(checksum && findChecksum(frame, work))) return false
    if (work.segmentSize === 0) return true
    return work.checksumStart >= 0 && (work.segmentIp === 4 ? segment4 : segment6)
  }
}
