/** Socket device: streams between guest and host. ("Socket Device") */

import type {
  DescriptorChain,
  IncomingStream,
  Snapshot,
  SocketBackend,
  SocketStream,
  VirtioDevice,
  VirtioPort,
  Virtqueue,
} from '@nonroot/contracts'
import { BUFFER_SIZE, Connection } from './connection.ts'
import { HEADER_SIZE, Operation, readPacket, Shutdown, STREAM, writePacket } from './packet.ts'
import type { Packet } from './packet.ts'

const RECEIVE = 0
const TRANSMIT = 1
const EVENT = 2
const QUEUE_SIZE = 128
export const SocketFeature = { stream: 0, noImpliedStream: 2 } as const
const MOST_CONNECTIONS = 1024
/** Control packets that wait for the guest; beyond that it is not listened to either. */
const MOST_CONTROL = 1024
const MOST_PAYLOAD = 64 * 1024
/** Names of the host's ends of streams that the host began. */
const FIRST_PORT = 0x4000_0000

const key = (guestPort: number, hostPort: number): string => `${guestPort}:${hostPort}`

export class Vsock implements VirtioDevice {
  readonly deviceId = 19
  readonly pciClass = 0x078000
  readonly features = [SocketFeature.stream, SocketFeature.noImpliedStream]
  readonly queueSizes = [QUEUE_SIZE, QUEUE_SIZE, 16]
  readonly config = new Uint8Array(8)
  readonly #port: VirtioPort
  readonly #sockets: SocketBackend
  readonly #cid: number
  readonly #connections = new Map<string, Connection>()
  readonly #control: Uint8Array[] = []
  readonly #unlisten: () => void
  #nextPort = FIRST_PORT
  #started = false
  /** Too much waits for the guest to fetch it. */
  #blocked = false
  /** The guest must be notified that all streams are closed. */
  #resetPending = false

  constructor(port: VirtioPort, sockets: SocketBackend, cid: number) {
    this.#port = port
    this.#sockets = sockets
    this.#cid = cid
    new DataView(this.config.buffer).setUint32(0, cid, true)
    this.#unlisten = sockets.onConnect((guestPort, stream) => this.#incoming(guestPort, stream))
  }

  start(): void {
    this.#started = true
  }

  process(queue: Virtqueue): void {
    if (queue.index === TRANSMIT) this.#receive(queue)
    if (queue.index === EVENT && this.#resetPending) this.#tellReset()
    this.#pump()
  }

  /** Streams are implied unless the driver says that it knows better. */
  get #streams(): boolean {
    return this.#port.accepted(SocketFeature.stream) || !this.#port.accepted(SocketFeature.noImpliedStream)
  }

  // From the guest

  #receive(queue: Virtqueue): void {
    const header = new Uint8Array(HEADER_SIZE)
    for (;;) {
      this.#blocked = this.#control.length >= MOST_CONTROL
      const chain = this.#blocked ? undefined : queue.pop()
      if (!chain) return
      const packet = chain.read(0, header) ? readPacket(header, this.#cid) : undefined
      if (packet) this.#obey(packet, chain)
      queue.push(chain, 0)
    }
  }

  #obey(packet: Packet, chain: DescriptorChain): void {
    const { guestPort, hostPort, operation } = packet
    const connection = this.#connections.get(key(guestPort, hostPort))
    if (operation === Operation.reset) return connection && this.#drop(connection)
    // "A VIRTIO_VSOCK_OP_RST reply MUST be sent if a packet is received with an unknown type value."
    if (packet.type !== STREAM || !this.#streams) return this.#refuse(packet)
    if (operation === Operation.request) return connection ? this.#abort(connection) : this.#open(packet)
    if (!connection) return this.#refuse(packet)
    connection.peerSize = packet.bufferSize
    connection.peerForwarded = packet.forwarded
    if (operation === Operation.response && connection.state === 'requested') this.#established(connection)
    else if (operation === Operation.data && connection.state !== 'requested') this.#forward(connection, packet, chain)
    else if (operation === Operation.shutdown) this.#shutdown(connection, packet.flags)
    else if (operation === Operation.creditRequest) this.#send(connection, Operation.creditUpdate)
    else if (operation !== Operation.creditUpdate) this.#abort(connection)
  }

  #open(packet: Packet): void {
    if (this.#connections.size >= MOST_CONNECTIONS) return this.#refuse(packet)
    const connection = new Connection(packet.guestPort, packet.hostPort)
    connection.peerSize = packet.bufferSize
    connection.peerForwarded = packet.forwarded
    this.#add(connection)
    this.#sockets.connect(packet.hostPort).then(
      (stream) => {
        if (this.#connections.get(key(packet.guestPort, packet.hostPort)) !== connection) return stream.destroy()
        connection.stream = stream
        connection.state = 'open'
        this.#send(connection, Operation.response)
        this.#handle(connection, stream)
        this.#pump()
      },
      () => {
        if (this.#connections.get(key(packet.guestPort, packet.hostPort)) !== connection) return
        this.#abort(connection)
        this.#pump()
      },
    )
  }

  #established(connection: Connection): void {
    connection.state = 'open'
    const stream = connection.stream as IncomingStream
    stream.accepted(connection.hostPort)
    this.#handle(connection, stream)
  }

  #forward(connection: Connection, { length }: Packet, chain: DescriptorChain): void {
    // More than there is, or than there was room for: no driver that keeps to the rules sends that.
    const lies = length > chain.readable - HEADER_SIZE || length > connection.room
    if (lies || connection.guestShutdown & Shutdown.send || connection.state === 'connecting')
      return this.#abort(connection)
    const bytes = new Uint8Array(length)
    chain.read(HEADER_SIZE, bytes)
    connection.received = (connection.received + length) >>> 0
    if (connection.state === 'open') connection.stream?.write(bytes)
    else this.#taken(connection, length)
  }

  #shutdown(connection: Connection, flags: number): void {
    connection.guestShutdown |= flags & Shutdown.both
    if (connection.guestShutdown & Shutdown.send) connection.stream?.end()
    if (connection.guestShutdown !== Shutdown.both) return
    // A clean disconnect: what was written still goes to the host.
    this.#send(connection, Operation.reset)
    this.#forget(connection)
  }

  // From the host

  #incoming(guestPort: number, stream: IncomingStream): void {
    if (!this.#started || !this.#streams || this.#connections.size >= MOST_CONNECTIONS) return stream.destroy()
    while (this.#connections.has(key(guestPort, this.#nextPort))) this.#nextPort++
    const connection = new Connection(guestPort, this.#nextPort)
    this.#nextPort = this.#nextPort === 0x7fff_ffff ? FIRST_PORT : this.#nextPort + 1
    connection.state = 'requested'
    connection.stream = stream
    this.#add(connection)
    this.#send(connection, Operation.request)
    this.#pump()
  }

  #handle(connection: Connection, stream: SocketStream): void {
    stream.handle({
      data: (bytes) => {
        if (connection.guestShutdown & Shutdown.receive || !connection.addOutgoing(bytes)) this.#abort(connection)
        this.#pump()
      },
      end: () => {
        connection.hostEnded = true
        this.#pump()
      },
      close: () => {
        if (connection.state === 'open') connection.state = 'ending'
        this.#pump()
      },
      taken: (bytes) => {
        this.#taken(connection, bytes)
        this.#pump()
      },
    })
  }

  #taken(connection: Connection, bytes: number): void {
    connection.forwarded = (connection.forwarded + bytes) >>> 0
    const untold = (connection.forwarded - connection.told) >>> 0
    if (untold >= BUFFER_SIZE / 4) this.#send(connection, Operation.creditUpdate)
  }

  // To the guest

  #packet(connection: Connection, operation: number, length = 0, flags = 0): Uint8Array {
    const { guestPort, hostPort, forwarded } = connection
    connection.told = forwarded
    return writePacket(
      { guestPort, hostPort, length, type: STREAM, operation, flags, bufferSize: BUFFER_SIZE, forwarded },
      this.#cid,
    )
  }

  #send(connection: Connection, operation: number, flags = 0): void {
    if (this.#connections.get(key(connection.guestPort, connection.hostPort)) === connection)
      this.#control.push(this.#packet(connection, operation, 0, flags))
  }

  #refuse({ guestPort, hostPort, type }: Packet): void {
    const answer = {
      guestPort,
      hostPort,
      type,
      length: 0,
      operation: Operation.reset,
      flags: 0,
      bufferSize: 0,
      forwarded: 0,
    }
    this.#control.push(writePacket(answer, this.#cid))
  }

  /** Into receive buffers, as far as there are any; then what the guest sent and had to wait for that. */
  #pump(): void {
    const receive = this.#port.queue(RECEIVE)
    const transmit = this.#port.queue(TRANSMIT)
    if (!receive) return
    while (this.#fill(receive) && this.#blocked && transmit) this.#receive(transmit)
    receive.signal()
    transmit?.signal()
  }

  /** Control first, then data of each stream in turn. False: there is no buffer left. */
  #fill(queue: Virtqueue): boolean {
    while (this.#control.length > 0) {
      const chain = queue.pop()
      if (!chain) return false
      const packet = this.#control.shift()!
      queue.push(chain, chain.write(0, packet) ? packet.length : 0)
    }
    for (const connection of this.#connections.values()) {
      while (connection.outgoing.length > 0 && connection.credit > 0 && connection.state !== 'connecting') {
        const chain = queue.pop()
        if (!chain) return false
        this.#sendData(queue, chain, connection)
      }
      this.#sendShutdown(connection)
    }
    return this.#control.length === 0 || this.#fill(queue)
  }

  #sendData(queue: Virtqueue, chain: DescriptorChain, connection: Connection): void {
    const length = Math.min(connection.outgoing.length, connection.credit, chain.writable - HEADER_SIZE, MOST_PAYLOAD)
    if (length <= 0) return queue.push(chain, 0)
    const bytes = new Uint8Array(length)
    connection.takeOutgoing(bytes)
    chain.write(0, this.#packet(connection, Operation.data, length))
    chain.write(HEADER_SIZE, bytes)
    queue.push(chain, HEADER_SIZE + length)
  }

  /** Once everything was sent, the guest is notified of what will not follow. */
  #sendShutdown(connection: Connection): void {
    if (connection.outgoing.length > 0) return
    const flags = connection.state === 'ending' ? Shutdown.both : connection.hostEnded ? Shutdown.send : 0
    if ((connection.shutdownSent | flags) === connection.shutdownSent) return
    connection.shutdownSent |= flags
    this.#send(connection, Operation.shutdown, flags)
  }

  // Coming and going

  #add(connection: Connection): void {
    this.#connections.set(key(connection.guestPort, connection.hostPort), connection)
  }

  /** The stream goes on to its end without us. */
  #forget(connection: Connection): void {
    this.#connections.delete(key(connection.guestPort, connection.hostPort))
    connection.stream?.end()
  }

  #drop(connection: Connection): void {
    this.#connections.delete(key(connection.guestPort, connection.hostPort))
    connection.stream?.destroy()
  }

  #abort(connection: Connection): void {
    this.#send(connection, Operation.reset)
    this.#drop(connection)
  }

  // Life

  stop(): void {
    this.#started = this.#resetPending = this.#blocked = false
    this.#control.length = 0
    for (const connection of [...this.#connections.values()]) this.#drop(connection)
  }

  save(): Snapshot {
    return { type: 'virtio-vsock', version: 1, data: { started: this.#started } }
  }

  /** Streams are not in a snapshot: the guest learns that they are gone. */
  restore(snapshot: Snapshot): void {
    this.stop()
    this.#started = snapshot.data['started'] as boolean
    this.#resetPending = this.#started
    this.#tellReset()
  }

  #tellReset(): void {
    const queue = this.#port.queue(EVENT)
    const chain = this.#resetPending ? queue?.pop() : undefined
    if (!queue || !chain) return
    this.#resetPending = false
    // VIRTIO_VSOCK_EVENT_TRANSPORT_RESET
    queue.push(chain, chain.write(0, new Uint8Array(4)) ? 4 : 0)
    queue.signal()
  }

  async dispose(): Promise<void> {
    this.#unlisten()
    this.stop()
    await this.#sockets.close()
  }
}
