/** A guest on the user-mode network, for tests: makes frames, and shows those that come as text. Not part of the package. */

import { NO_WORK } from '@nonroot/contracts'
import type { NetworkRequest } from '@nonroot/contracts'
import { Flag } from '../tcp/facts.ts'
import { Segment } from '../tcp/segment.ts'
import { Address4, Address6, GATEWAY_MAC } from '../user/addresses.ts'
import { UserNetwork } from '../user/user-network.ts'
import { EtherType, Protocol } from '../wire/facts.ts'
import { FrameWriter } from '../wire/frame-writer.ts'
import { Packet } from '../wire/packet.ts'
import { FakeCard, FakeHost, settle, surroundings } from './fake-host.ts'

export const GUEST_MAC = Uint8Array.of(0x52, 0x54, 0, 0x12, 0x34, 0x56)
export const ip = (text: string): Uint8Array => Uint8Array.from(text.split('.').map(Number))

export class Guest {
  readonly host: FakeHost
  readonly card = new FakeCard()
  readonly network: UserNetwork
  readonly around = surroundings()
  readonly #writer = new FrameWriter()

  constructor(request: Partial<NetworkRequest> = {}, host = new FakeHost()) {
    this.host = host
    this.network = new UserNetwork({ network: 'user', ...request }, { host, macAddress: GUEST_MAC })
    this.network.connect(this.card, this.around)
  }

  /** TCP connections that the network has. */
  get connections(): number {
    return this.around.metrics.scope('network').gauge('connections', '').value
  }

  /** The first sequence number that the network takes for its first connection. */
  get initial(): number {
    const bytes = new Uint8Array(4)
    new FakeHost().random(bytes)
    return new DataView(bytes.buffer).getUint32(0)
  }

  /** One frame, and the end of its batch. Gives what came back at once. */
  send(frame: Uint8Array): string[] {
    this.network.receive(frame, NO_WORK)
    this.network.flush()
    return this.shown()
  }

  /** What came since, and what comes when promises come true. */
  async later(): Promise<string[]> {
    await settle()
    return this.shown()
  }

  shown(): string[] {
    return this.card.take().map(describeFrame)
  }

  ethernet(type: number, payload: Uint8Array): Uint8Array {
    this.#writer.ethernet(GATEWAY_MAC, GUEST_MAC, type)
    this.#writer.bytes.set(payload, this.#writer.payload)
    return this.#writer.bytes.slice(0, this.#writer.payload + payload.length)
  }

  arp(target: Uint8Array): Uint8Array {
    const body = [0, 1, 8, 0, 6, 4, 0, 1, ...GUEST_MAC, ...Address4.guest, 0, 0, 0, 0, 0, 0, ...target]
    return this.ethernet(EtherType.arp, Uint8Array.from(body))
  }

  #ip(to: Uint8Array, protocol: number, hopLimit?: number): FrameWriter {
    const writer = this.#writer
    writer.ip(
      { destination: GATEWAY_MAC, source: GUEST_MAC },
      to.length === 4 ? Address4.guest : Address6.guest,
      to,
      protocol,
      hopLimit,
    )
    return writer
  }

  udp(to: Uint8Array, port: number, data: string | Uint8Array, from = 5000): Uint8Array {
    const writer = this.#ip(to, Protocol.udp)
    const bytes = typeof data === 'string' ? new TextEncoder().encode(data) : data
    writer.bytes.set(bytes, writer.udpPayload)
    const end = writer.udpPayload + bytes.length
    writer.finishUdp(from, port, end, false)
    return writer.bytes.slice(0, end)
  }

  icmp(to: Uint8Array, bytes: readonly number[], hopLimit?: number): Uint8Array {
    const four = to.length === 4
    const writer = this.#ip(to, four ? Protocol.icmp : Protocol.icmpv6, hopLimit)
    const at = writer.payload
    writer.bytes.set(bytes, at)
    writer.view.setUint16(at + 2, 0)
    const end = at + bytes.length
    if (four) {
      writer.finish(end)
      let sum = 0
      for (let index = at; index < end; index += 2) sum += writer.view.getUint16(index)
      writer.view.setUint16(at + 2, ~((sum & 0xffff) + (sum >> 16)) & 0xffff)
    } else writer.finishTransport(end, 2, false)
    return writer.bytes.slice(0, end)
  }

  tcp(
    to: Uint8Array,
    port: number,
    flags: number,
    fields: { seq?: number; ack?: number; from?: number; data?: string; window?: number } = {},
  ): Uint8Array {
    const { seq = 0, ack = 0, from = 6000, data = '', window = 65535 } = fields
    const writer = this.#ip(to, Protocol.tcp)
    const { view, payload, bytes } = writer
    view.setUint16(payload, from)
    view.setUint16(payload + 2, port)
    view.setUint32(payload + 4, seq)
    view.setUint32(payload + 8, ack)
    view.setUint16(payload + 12, (5 << 12) | flags)
    view.setUint16(payload + 14, window)
    view.setUint32(payload + 16, 0)
    const text = new TextEncoder().encode(data)
    bytes.set(text, payload + 20)
    const end = payload + 20 + text.length
    writer.finishTransport(end, 16, false)
    return bytes.slice(0, end)
  }
}

const text = (address: Uint8Array): string =>
  address.length === 4
    ? address.join('.')
    : [...address]
        .map((byte, index) => byte.toString(16).padStart(2, '0') + (index % 2 && index < 15 ? ':' : ''))
        .join('')

/** `tcp 10.0.2.2:80 > 10.0.2.15:6000 SA`, `icmp 10.0.2.2 > 10.0.2.15 3/1`. */
export function describeFrame(frame: Uint8Array): string {
  const packet = new Packet()
  if (!packet.parse(frame)) return 'broken'
  if (packet.etherType === EtherType.arp)
    return `arp ${frame[21] === 2 ? 'reply' : 'request'} ${text(frame.slice(28, 32))} is ${[...frame.slice(22, 28)].map((byte) => byte.toString(16)).join(':')}`
  const { bytes, view, payload, end } = packet
  const from = text(packet.copy(packet.addresses))
  const to = text(packet.copy(packet.destination))
  if (packet.protocol === Protocol.icmp || packet.protocol === Protocol.icmpv6)
    return `icmp ${from} > ${to} ${bytes[payload]}/${bytes[payload + 1]}`
  const ports = [view.getUint16(payload), view.getUint16(payload + 2)]
  const ends = `${from}:${ports[0]} > ${to}:${ports[1]}`
  if (packet.protocol === Protocol.udp)
    return `udp ${ends} ${new TextDecoder('latin1').decode(bytes.subarray(payload + 8, Math.min(end, payload + 40)))}`
  const segment = new Segment()
  segment.parse(bytes, view, payload, end)
  const flags = Object.entries({ S: Flag.syn, A: Flag.ack, F: Flag.fin, R: Flag.rst, P: Flag.psh })
  const letters = flags.filter(([, flag]) => segment.flags & flag).map(([letter]) => letter)
  const data = segment.length > 0 ? ` ${new TextDecoder().decode(bytes.subarray(segment.payload, end))}` : ''
  return `tcp ${ends} ${letters.join('')}${data}`
}
