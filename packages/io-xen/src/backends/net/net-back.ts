/** A network card's half in domain 0: frames between two rings and a cable, copied from and to pages that the guest grants. (Xen, "public/io/netif.h") */

import { createCardCounters, NetworkCable, NO_OFFLOADS } from '@nonroot/contracts'
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
import { BackRing } from '../ring.ts'
import type { FrontEnd, Nodes, SplitDriver } from '../split-device.ts'
import type { Connection } from './connection.ts'
import { RX_SIZE, TX_SIZE } from './format.ts'
import { Receiver } from './receiver.ts'
import { Sender } from './sender.ts'

export class NetBack implements SplitDriver, Device, CableEnd, NetworkCable {
  readonly type = 'vif'
  readonly handle: number
  readonly offers: NonNullable<Device['offers']> = new Map([[NetworkCable, this]])
  readonly #network: NetworkBackend
  readonly #far: CableEnd
  readonly #memory: DmaMemory
  #connection: Connection | undefined
  readonly #sender: Sender
  readonly #receiver: Receiver
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
    this.#sender = new Sender(context.dma, this.#far, () => this.#isUp, this.#counters)
    this.#receiver = new Receiver(context.dma, this.#far, this.#counters)
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
    const onSend = (): void => this.start()
    const onReceive = (): void => this.#receiver.ready()
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
    this.#sender.reset()
    this.#receiver.reset()
    return {}
  }

  start(): void {
    if (this.#connection) this.#sender.process(this.#connection)
  }

  disconnect(then: () => void): void {
    this.abandon()
    then()
  }

  abandon(): void {
    this.#connection = undefined
    // What the network keeps for this guest is dropped.
    this.#receiver.ready()
  }

  // As the card's end of the cable

  get offloads(): FrameOffloads {
    return this.#connection?.offloads ?? NO_OFFLOADS
  }

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    if (this.#connection && this.#isUp) return this.#receiver.receive(this.#connection, frame, work)
    this.#counters.dropped.value++
    return true
  }

  flush(): void {
    const connection = this.#connection
    if (connection?.receive.push()) connection.receivePort.notify()
  }

  ready(): void {
    this.#sender.ready(this.#connection)
  }

  carrier(on: boolean): void {
    this.#farOn = on
  }

  // The cable: the protocol has no link status, so frames are dropped.

  get #isUp(): boolean {
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
