/** Network device: frames between a driver's queues and a cable. Independent of networks. ("Network Device") @hot */

import {
  createCardCounters,
  createFrameWork,
  ETHERNET_HEADER,
  LONGEST_FRAME,
  NetworkCable,
  SHORTEST_FRAME,
} from '@nonroot/contracts'
import type {
  CableEnd,
  CardCounters,
  DescriptorChain,
  Device,
  DeviceContext,
  FrameOffloads,
  FrameWork,
  NetworkBackend,
  Snapshot,
  VirtioDevice,
  VirtioPort,
  Virtqueue,
} from '@nonroot/contracts'
import { Controller } from './control.ts'
import { FrameFilter } from './filter.ts'
import { GsoType, HeaderFlag, NetConfig, NetFeature, NetHeader, NetStatus } from './format.ts'

const CONTROL_QUEUE_SIZE = 64
/** Buffers that a frame is spread over: of 1,536 bytes the longest takes 43; of the least a driver may give it would take more than any ring has. */
const MOST_BUFFERS = 256
const TCP_DATA_OFFSET = 12

export interface NetOptions {
  readonly pairs: number
  readonly queueSize: number
}

export class VirtioNet implements VirtioDevice, CableEnd, NetworkCable {
  readonly deviceId = 1
  readonly pciClass = 0x020000
  readonly features: readonly number[]
  readonly queueSizes: readonly number[]
  readonly config = new Uint8Array(NetConfig.size)
  readonly offers: NonNullable<Device['offers']> = new Map([[NetworkCable, this]])
  readonly #view = new DataView(this.config.buffer)
  readonly #port: VirtioPort
  readonly #network: NetworkBackend
  readonly #far: CableEnd
  readonly #pairs: number
  readonly #filter = new FrameFilter()
  readonly #controller: Controller
  readonly #header = new Uint8Array(NetHeader.size)
  readonly #headerView = new DataView(this.#header.buffer)
  readonly #frame = new Uint8Array(LONGEST_FRAME)
  readonly #work = createFrameWork()
  readonly #chains: DescriptorChain[] = []
  #running = false
  /** The network had no room for a frame. */
  #sendBlocked = false
  /** The driver had none for one of the network's, which waits for `ready`, though shorter ones may pass it. */
  #receiveBlocked = false
  /** The frame that `#collect` found no room for is longer than the driver's buffers can be. */
  #fitsNever = false
  #farOn = true
  #plugged = true
  #counters: CardCounters

  constructor(
    port: VirtioPort,
    network: NetworkBackend,
    options: NetOptions,
    context: Pick<DeviceContext, 'clock' | 'metrics' | 'log'>,
  ) {
    this.#port = port
    this.#network = network
    this.#pairs = options.pairs
    this.#counters = createCardCounters(
      context.metrics,
      'frames that were malformed, filtered out, or found the device stopped',
    )
    this.#far = network.connect(this, context)
    this.features = featuresOf(this.#far.offloads, options.pairs)
    this.queueSizes = [...new Array<number>(2 * options.pairs).fill(options.queueSize), CONTROL_QUEUE_SIZE]
    this.#controller = new Controller(this.#filter, {
      accepted: (feature) => port.accepted(feature),
      mostPairs: options.pairs,
      setMac: (mac) => this.config.set(mac, NetConfig.mac),
      announced: () => this.#setStatus(NetStatus.announce, false),
    })
    this.#initialise()
  }

  #initialise(): void {
    this.config.set(this.#network.macAddress, NetConfig.mac)
    this.#view.setUint16(NetConfig.status, this.#linkUp ? NetStatus.linkUp : 0, true)
    this.#view.setUint16(NetConfig.maxPairs, this.#pairs, true)
    this.#view.setUint16(NetConfig.mtu, this.#network.mtu, true)
    this.#filter.reset()
    this.#controller.reset()
    this.#sendBlocked = this.#receiveBlocked = false
  }

  // The driver's queues

  start(): void {
    this.#running = true
  }

  /** Without VIRTIO_NET_F_MQ the control queue is the third, however many pairs the device has. */
  get #controlQueue(): number {
    return this.#port.accepted(NetFeature.multiQueue) ? 2 * this.#pairs : 2
  }

  process(queue: Virtqueue): void {
    if (queue.index === this.#controlQueue) return this.#controller.process(queue, this.#port)
    if (queue.index % 2 === 1) {
      this.#transmit(queue)
      this.#far.flush()
    } else if (this.#receiveBlocked) {
      this.#receiveBlocked = false
      this.#far.ready()
    }
  }

  #transmit(queue: Virtqueue): void {
    const counters = this.#counters
    const header = this.#header
    for (let chain = queue.pop(); chain; chain = queue.pop()) {
      const length = chain.readable - NetHeader.size
      if (length < SHORTEST_FRAME || length > LONGEST_FRAME || !chain.read(0, header)) {
        counters.dropped.value++
        queue.push(chain, 0)
        continue
      }
      const frame = this.#frame.subarray(0, length)
      chain.read(NetHeader.size, frame)
      if (!this.#readHeader(length) || !this.#linkUp) counters.dropped.value++
      else if (this.#far.receive(frame, this.#work)) {
        counters.sent.value++
        counters.bytesSent.value += length
      } else {
        queue.unpop(chain)
        this.#sendBlocked = true
        return
      }
      queue.push(chain, 0)
    }
  }

  /** What a frame's header leaves to do. False: it makes no sense, or was not negotiated. */
  #readHeader(length: number): boolean {
    const view = this.#headerView
    const work = this.#work
    const port = this.#port
    const type = view.getUint8(NetHeader.gsoType) & ~GsoType.ecn
    work.checksumStart = -1
    work.segmentSize = work.segmentIp = 0
    if (view.getUint8(NetHeader.flags) & HeaderFlag.needsChecksum) {
      work.checksumStart = view.getUint16(NetHeader.checksumStart, true)
      work.checksumOffset = view.getUint16(NetHeader.checksumOffset, true)
      if (!port.accepted(NetFeature.checksum)) return false
      if (work.checksumStart < ETHERNET_HEADER || work.checksumStart + work.checksumOffset + 2 > length) return false
    }
    if (type === GsoType.none) return true
    work.segmentSize = view.getUint16(NetHeader.gsoSize, true)
    work.segmentIp = type === GsoType.tcp4 ? 4 : 6
    const feature = type === GsoType.tcp4 ? NetFeature.hostTso4 : NetFeature.hostTso6
    if (type !== GsoType.tcp4 && type !== GsoType.tcp6) return false
    return work.segmentSize > 0 && work.checksumStart >= 0 && port.accepted(feature)
  }

  // As the card's end of the cable

  get offloads(): FrameOffloads {
    return this.#controller.offloads
  }

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    const counters = this.#counters
    const port = this.#port
    const filters = port.accepted(NetFeature.controlRx)
    const wanted =
      this.#running &&
      this.#linkUp &&
      this.#fits(work) &&
      this.#filter.wants(frame, this.config, filters, port.accepted(NetFeature.controlVlan))
    const queue = wanted ? port.queue(2 * this.#pairOf(frame)) : undefined
    if (!queue) {
      counters.dropped.value++
      return true
    }
    if (!this.#collect(queue, NetHeader.size + frame.length)) {
      if (this.#fitsNever) counters.dropped.value++
      else this.#receiveBlocked = true
      return this.#fitsNever
    }
    this.#writeHeader(frame, work)
    this.#spread(queue, frame)
    counters.received.value++
    counters.bytesReceived.value += frame.length
    return true
  }

  #fits({ checksumStart, segmentSize, segmentIp }: Readonly<FrameWork>): boolean {
    const { checksum, segment4, segment6 } = this.offloads
    if (checksumStart >= 0 && !checksum) return false
    return segmentSize === 0 || (segmentIp === 4 ? segment4 : segment6)
  }

  /** Frames of one connection take one queue. */
  #pairOf(frame: Uint8Array): number {
    const pairs = this.#controller.pairs
    if (pairs === 1) return 0
    // Ports of TCP or UDP over IPv4 without options; over anything else, bytes that are the same for a connection, too.
    return (frame[34]! ^ frame[35]! ^ frame[36]! ^ frame[37]!) % pairs
  }

  /** Buffers for so many bytes into `#chains`. False: none were taken; the frame has to wait, or `#fitsNever`. */
  #collect(queue: Virtqueue, length: number): boolean {
    const chains = this.#chains
    chains.length = 0
    const most = this.#port.accepted(NetFeature.mergeableBuffers) ? Math.min(MOST_BUFFERS, queue.size) : 1
    let room = 0
    this.#fitsNever = true
    while (room < length && chains.length < most) {
      const chain = queue.pop()
      if (!chain) {
        this.#fitsNever = false
        break
      }
      chains.push(chain)
      // The header is in one piece.
      if (chain.writable < NetHeader.size) break
      room += chain.writable
    }
    if (room >= length) return true
    for (let chain = chains.pop(); chain; chain = chains.pop()) queue.unpop(chain)
    return false
  }

  #writeHeader(
    frame: Uint8Array,
    { checksumStart, checksumOffset, segmentSize, segmentIp }: Readonly<FrameWork>,
  ): void {
    const view = this.#headerView
    const partial = checksumStart >= 0
    const headers = segmentSize > 0 ? checksumStart + (frame[checksumStart + TCP_DATA_OFFSET]! >> 4) * 4 : 0
    view.setUint8(NetHeader.flags, partial ? HeaderFlag.needsChecksum : 0)
    view.setUint8(NetHeader.gsoType, segmentSize === 0 ? GsoType.none : segmentIp === 4 ? GsoType.tcp4 : GsoType.tcp6)
    view.setUint16(NetHeader.headerLength, headers, true)
    view.setUint16(NetHeader.gsoSize, segmentSize, true)
    view.setUint16(NetHeader.checksumStart, partial ? checksumStart : 0, true)
    view.setUint16(NetHeader.checksumOffset, partial ? checksumOffset : 0, true)
    view.setUint16(NetHeader.buffers, this.#chains.length, true)
  }

  /** Header and frame over the buffers in `#chains`, which have room. */
  #spread(queue: Virtqueue, frame: Uint8Array): void {
    const chains = this.#chains
    let done = 0
    for (let index = 0; index < chains.length; index++) {
      const chain = chains[index]!
      const start = index === 0 ? NetHeader.size : 0
      if (index === 0) chain.write(0, this.#header)
      const piece = Math.min(chain.writable - start, frame.length - done)
      chain.write(start, piece === frame.length ? frame : frame.subarray(done, done + piece))
      done += piece
      queue.push(chain, start + piece)
    }
    chains.length = 0
  }

  flush(): void {
    for (let pair = 0; pair < this.#pairs; pair++) this.#port.queue(2 * pair)?.signal()
  }

  ready(): void {
    if (!this.#sendBlocked) return
    this.#sendBlocked = false
    for (let pair = 0; pair < this.#pairs && !this.#sendBlocked; pair++) {
      const queue = this.#running ? this.#port.queue(2 * pair + 1) : undefined
      if (!queue) continue
      this.#transmit(queue)
      queue.signal()
    }
    this.#far.flush()
  }

  // The link

  get #linkUp(): boolean {
    return this.#farOn && this.#plugged
  }

  carrier(on: boolean): void {
    this.#farOn = on
    this.#setStatus(NetStatus.linkUp, this.#linkUp)
  }

  get plugged(): boolean {
    return this.#plugged
  }

  plug(on: boolean): void {
    if (this.#plugged === on) return
    this.#plugged = on
    this.#far.carrier(on)
    this.#setStatus(NetStatus.linkUp, this.#linkUp)
  }

  #setStatus(bit: number, on: boolean): void {
    const before = this.#view.getUint16(NetConfig.status, true)
    const status = on ? before | bit : before & ~bit
    if (status === before) return
    this.#view.setUint16(NetConfig.status, status, true)
    // An announcement that was acknowledged needs no notification.
    if (bit === NetStatus.linkUp || on) this.#port.configChanged()
  }

  // Life

  stop(): void {
    const waited = this.#receiveBlocked
    this.#running = false
    this.#initialise()
    // There will be no room for what waits: it comes now, and is dropped.
    if (waited) this.#far.ready()
  }

  save(): Snapshot {
    return {
      type: 'virtio-net',
      version: 1,
      data: { config: this.config.slice(), filter: this.#filter.save(), control: this.#controller.save() },
    }
  }

  restore(snapshot: Snapshot): void {
    this.config.set(snapshot.data['config'] as Uint8Array)
    this.#filter.restore(snapshot.data['filter'] as Snapshot['data'])
    this.#controller.restore(snapshot.data['control'] as Snapshot['data'])
    this.#running = true
    this.#setStatus(NetStatus.linkUp, this.#linkUp)
    // Switches have to learn where the guest is now.
    if (this.#port.accepted(NetFeature.guestAnnounce)) this.#setStatus(NetStatus.announce, true)
  }

  async dispose(): Promise<void> {
    this.#running = false
    await this.#network.close()
  }
}

const featuresOf = (far: FrameOffloads, pairs: number): number[] => [
  ...(far.checksum ? [NetFeature.checksum] : []),
  ...(far.checksum && far.segment4 ? [NetFeature.hostTso4] : []),
  ...(far.checksum && far.segment6 ? [NetFeature.hostTso6] : []),
  ...[NetFeature.guestChecksum, NetFeature.guestTso4, NetFeature.guestTso6, NetFeature.controlGuestOffloads],
  ...[NetFeature.mtu, NetFeature.mac, NetFeature.mergeableBuffers, NetFeature.status, NetFeature.guestAnnounce],
  ...[NetFeature.controlQueue, NetFeature.controlRx, NetFeature.controlVlan, NetFeature.controlMac],
  ...(pairs > 1 ? [NetFeature.multiQueue] : []),
]
