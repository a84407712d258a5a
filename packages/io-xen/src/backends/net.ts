/** A network card's half in domain 0: frames between two rings and a cable, copied from and to pages that the guest grants. (Xen, "public/io/netif.h") @hot */

import { createCardCounters, createFrameWork, LONGEST_FRAME, NetworkCable, SHORTEST_FRAME } from '@nonroot/contracts'
import type {
  CableEnd,
  CardCounters,
  Device,
  DeviceContext,
  DmaMemory,
  FrameOffloads,
  FrameWork,
  NetworkBackend,
} from '@nonroot/contracts'
import type { LocalPort } from '../event-channels.ts'
import { findChecksum } from './checksum.ts'
import {
  EXTRA,
  EXTRA_MORE,
  EXTRA_TYPE,
  MOST_EXTRAS,
  MOST_SLOTS,
  RX,
  RX_FLAG,
  RX_RESPONSE,
  RX_SIZE,
  SEGMENT_TYPE,
  TX,
  TX_FLAG,
  TX_RESPONSE,
  TX_RESPONSE_SIZE,
  TX_SIZE,
  TX_STATUS,
} from './net-format.ts'
import { BackRing } from './ring.ts'
import type { FrontEnd, Nodes, SplitDriver } from './split-device.ts'

const PAGE = 4096

interface Connection {
  readonly send: BackRing
  readonly receive: BackRing
  readonly sendPort: LocalPort
  readonly receivePort: LocalPort
  readonly guest: FrontEnd
  readonly offloads: FrameOffloads
}

export class NetBack implements SplitDriver, Device, CableEnd, NetworkCable {
  readonly type = 'vif'
  readonly handle: number
  readonly offers: NonNullable<Device['offers']> = new Map([[NetworkCable, this]])
  readonly #network: NetworkBackend
  readonly #far: CableEnd
  readonly #memory: DmaMemory
  #connection: Connection | undefined
  readonly #slot = new Uint8Array(TX_SIZE)
  readonly #slotView = new DataView(this.#slot.buffer)
  readonly #extra = new Uint8Array(TX_SIZE)
  readonly #extraView = new DataView(this.#extra.buffer)
  readonly #answer = new Uint8Array(RX_SIZE)
  readonly #answerView = new DataView(this.#answer.buffer)
  readonly #frame = new Uint8Array(LONGEST_FRAME)
  readonly #work = createFrameWork()
  /** Slots with data of the frame that is being sent: reference, offset, size, identification. And how many extra ones it has. */
  readonly #slots = new Uint32Array(MOST_SLOTS * 4)
  #slotCount = 0
  #extraCount = 0
  #length = 0
  /** The network had no room for `#frame`; and the guest none for one of the network's. */
  #sendBlocked = false
  #receiveBlocked = false
  #farOn = true
  #plugged = true
  readonly #counters: CardCounters

  constructor(
    network: NetworkBackend,
    handle: number,
    context: Pick<DeviceContext, 'dma' | 'log' | 'metrics' | 'clock'>,
  ) {
    this.#network = network
    this.handle = handle
    this.#memory = context.dma
    this.#counters = createCardCounters(context.metrics, 'frames that were malformed, or found the card stopped')
    this.#far = network.connect(this, context)
  }

  // Halves

  get frontend(): Nodes {
    const mac = Array.from(this.#network.macAddress, (byte) => byte.toString(16).padStart(2, '0')).join(':')
    return { handle: this.handle, mac, mtu: this.#network.mtu }
  }

  get backend(): Nodes {
    const { segment4, segment6, checksum } = this.#far.offloads
    return {
      handle: this.handle,
      mac: this.frontend['mac']!,
      'feature-sg': 1,
      'feature-gso-tcpv4': Number(segment4),
      'feature-gso-tcpv6': Number(segment6),
      'feature-no-csum-offload': Number(!checksum),
      'feature-ipv6-csum-offload': Number(checksum),
      'feature-rx-copy': 1,
      'feature-rx-flip': 0,
      'feature-split-event-channels': 1,
    }
  }

  connect(guest: FrontEnd): Nodes | string {
    if (guest.number('request-rx-copy') !== 1) return 'it does not ask for frames to be copied, and they never move'
    const sendPage = guest.pages([guest.number('tx-ring-ref') ?? 0])
    const receivePage = guest.pages([guest.number('rx-ring-ref') ?? 0])
    if (!sendPage || !receivePage) return 'its rings are not granted'
    const only = guest.number('event-channel')
    const onSend = (): void => this.#process()
    const onReceive = (): void => this.#roomAgain()
    const both = (): void => {
      onSend()
      onReceive()
    }
    const sendPort = guest.port(only ?? guest.number('event-channel-tx') ?? 0, only === undefined ? onSend : both)
    const receivePort = only === undefined ? guest.port(guest.number('event-channel-rx') ?? 0, onReceive) : sendPort
    if (!sendPort || !receivePort) return 'its event channels do not wait for domain 0'
    const wants = (name: string): boolean => guest.number(name) === 1
    const isScattered = wants('feature-sg')
    this.#connection = {
      send: new BackRing(this.#memory, sendPage, TX_SIZE),
      receive: new BackRing(this.#memory, receivePage, RX_SIZE),
      sendPort,
      receivePort,
      guest,
      offloads: {
        checksum: !wants('feature-no-csum-offload'),
        segment4: isScattered && wants('feature-gso-tcpv4'),
        segment6: isScattered && wants('feature-gso-tcpv6'),
      },
    }
    this.#sendBlocked = this.#receiveBlocked = false
    return {}
  }

  start(): void {
    this.#process()
  }

  disconnect(then: () => void): void {
    this.abandon()
    then()
  }

  abandon(): void {
    this.#connection = undefined
    if (!this.#receiveBlocked) return
    // What the network keeps for this guest is dropped.
    this.#receiveBlocked = false
    this.#far.ready()
  }

  // From the guest

  #process(): void {
    const connection = this.#connection
    if (!connection || this.#sendBlocked) return
    const { send, sendPort } = connection
    do {
      while (send.take(this.#slot)) {
        if (!this.#collect(connection)) return
        if (!this.#transmit(connection)) break
      }
      if (send.broken) return connection.guest.fail('its sending ring says that it holds more than it can')
    } while (!this.#sendBlocked && send.wait())
    if (send.push()) sendPort.notify()
    this.#far.flush()
  }

  /** The slots of the frame that `#slot` begins. False: they make no sense, and the guest is left alone. */
  #collect(connection: Connection): boolean {
    const { send, guest } = connection
    const view = this.#slotView
    const slots = this.#slots
    const work = this.#work
    work.checksumStart = -1
    work.segmentSize = work.segmentIp = 0
    const first = view.getUint16(TX.flags, true)
    const length = view.getUint16(TX.size, true)
    this.#slotCount = this.#extraCount = 0
    this.#note()
    if (first & TX_FLAG.extra && !this.#collectExtras(send)) return this.#refuse(guest)
    let rest = 0
    for (let flags = first; flags & TX_FLAG.moreData; flags = view.getUint16(TX.flags, true)) {
      if (this.#slotCount === MOST_SLOTS || !send.take(this.#slot)) return this.#refuse(guest)
      rest += view.getUint16(TX.size, true)
      this.#note()
    }
    // The first slot has the size of the whole.
    if (rest > 0 && rest >= length) return this.#refuse(guest)
    slots[2] = length - rest
    this.#length = length
    if (first & TX_FLAG.needsChecksum) work.checksumStart = 0
    return true
  }

  #refuse(guest: FrontEnd): false {
    guest.fail('a frame whose slots make no sense')
    return false
  }

  #note(): void {
    const view = this.#slotView
    const at = this.#slotCount++ * 4
    this.#slots[at] = view.getUint32(TX.reference, true)
    this.#slots[at + 1] = view.getUint16(TX.offset, true)
    this.#slots[at + 2] = view.getUint16(TX.size, true)
    this.#slots[at + 3] = view.getUint16(TX.id, true)
  }

  #collectExtras(send: BackRing): boolean {
    const view = this.#extraView
    const work = this.#work
    for (let more = true; more;) {
      if (this.#extraCount === MOST_EXTRAS || !send.take(this.#extra)) return false
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

  /** False: the network has no room, and the frame waits. */
  #transmit(connection: Connection): boolean {
    const frame = this.#frame.subarray(0, this.#length)
    if (!this.#gather(connection)) this.#sent(connection, TX_STATUS.error)
    else if (!this.#linkUp || !this.#understand(frame)) this.#sent(connection, TX_STATUS.dropped)
    else return this.#offer(connection, frame)
    return true
  }

  #offer(connection: Connection, frame: Uint8Array): boolean {
    this.#sendBlocked = !this.#far.receive(frame, this.#work)
    if (this.#sendBlocked) return false
    this.#counters.sent.value++
    this.#counters.bytesSent.value += frame.length
    this.#sent(connection, TX_STATUS.ok)
    return true
  }

  /** The frame's bytes, out of pages that the guest grants. */
  #gather({ guest: { grants } }: Connection): boolean {
    const slots = this.#slots
    let done = 0
    for (let n = 0; n < this.#slotCount; n++) {
      const [reference, offset, size] = [slots[n * 4]!, slots[n * 4 + 1]!, slots[n * 4 + 2]!]
      if (offset + size > PAGE) return false
      const page = grants.begin(reference, false)
      if (page === undefined) return false
      this.#memory.readBytes(page + offset, this.#frame.subarray(done, done + size))
      grants.end(reference, false)
      done += size
    }
    return true
  }

  /** What the slots left to do. False: it makes no sense, or the network does not do it. */
  #understand(frame: Uint8Array): boolean {
    const work = this.#work
    const { checksum, segment4, segment6 } = this.#far.offloads
    if (frame.length < SHORTEST_FRAME) return false
    if (work.checksumStart >= 0 && !(checksum && findChecksum(frame, work))) return false
    if (work.segmentSize === 0) return true
    return work.checksumStart >= 0 && (work.segmentIp === 4 ? segment4 : segment6)
  }

  /** Answers all slots of the frame. */
  #sent({ send }: Connection, status: number): void {
    if (status !== TX_STATUS.ok) this.#counters.dropped.value++
    for (let n = 0; n < this.#slotCount; n++) {
      this.#respond(send, this.#slots[n * 4 + 3]!, status)
      if (n === 0) for (let extra = 0; extra < this.#extraCount; extra++) this.#respond(send, 0, TX_STATUS.extra)
    }
  }
  #respond(send: BackRing, id: number, status: number): void {
    const view = this.#answerView
    view.setUint16(TX_RESPONSE.id, id, true)
    view.setInt16(TX_RESPONSE.status, status, true)
    send.respond(this.#answer.subarray(0, TX_RESPONSE_SIZE))
  }

  // As the card's end of the cable

  get offloads(): FrameOffloads {
    return this.#connection?.offloads ?? NOTHING
  }

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    const connection = this.#connection
    if (!connection || !this.#linkUp || !fits(connection.offloads, work)) {
      this.#counters.dropped.value++
      return true
    }
    const { receive } = connection
    const needed = Math.ceil(frame.length / PAGE) + (work.segmentSize > 0 ? 1 : 0)
    if (receive.available < needed && !receive.wait(needed)) {
      if (receive.broken) connection.guest.fail('its receiving ring says that it holds more than it can')
      this.#receiveBlocked = !receive.broken
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
      receive.take(this.#slot.subarray(0, RX_SIZE))
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
    receive.take(this.#slot.subarray(0, RX_SIZE))
    this.#answer.fill(0)
    view.setUint8(EXTRA.type, EXTRA_TYPE.segmentation)
    view.setUint16(EXTRA.segmentSize, work.segmentSize, true)
    view.setUint8(EXTRA.segmentType, work.segmentIp === 4 ? SEGMENT_TYPE.tcp4 : SEGMENT_TYPE.tcp6)
    receive.respond(this.#answer)
  }

  #roomAgain(): void {
    if (!this.#receiveBlocked) return
    this.#receiveBlocked = false
    this.#far.ready()
  }

  flush(): void {
    const connection = this.#connection
    if (connection?.receive.push()) connection.receivePort.notify()
  }

  ready(): void {
    const connection = this.#connection
    if (!this.#sendBlocked) return
    this.#sendBlocked = false
    if (!connection || !this.#offer(connection, this.#frame.subarray(0, this.#length))) return
    this.#process()
  }

  carrier(on: boolean): void {
    this.#farOn = on
  }

  // The cable: the protocol has no link status, so frames are dropped.

  get #linkUp(): boolean {
    return this.#plugged && this.#farOn
  }
  get plugged(): boolean {
    return this.#plugged
  }
  plug(on: boolean): void {
    if (on === this.#plugged) return
    this.#plugged = on
    this.#far.carrier(on)
  }

  async dispose(): Promise<void> {
    await this.#network.close()
  }
}

const NOTHING: FrameOffloads = { checksum: false, segment4: false, segment6: false }

function fits(offloads: FrameOffloads, { checksumStart, segmentSize, segmentIp }: Readonly<FrameWork>): boolean {
  if (checksumStart >= 0 && !offloads.checksum) return false
  return segmentSize === 0 || (segmentIp === 4 ? offloads.segment4 : offloads.segment6)
}
