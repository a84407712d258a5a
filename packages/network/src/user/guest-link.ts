/**
 * The guest's side of a user-mode network: its cable, the packet that it sent last, the frame being written for it, and the addresses that it uses.
 * What all protocols share. @hot
 */

import type { CableEnd, Counter, Gauge, NetworkSurroundings } from '@nonroot/contracts'
import { fold, sum } from '../wire/checksum.ts'
import { ICMP_HEADER, Protocol } from '../wire/facts.ts'
import { FrameWriter } from '../wire/frame-writer.ts'
import { Packet } from '../wire/packet.ts'
import { Address4, Address6, GATEWAY_MAC } from './addresses.ts'
import { Icmp6 } from './neighbours.ts'

export const Icmp4 = { echoReply: 0, unreachable: 3, echo: 8 } as const
/** Codes of "destination unreachable", for IPv4 and IPv6. */
const UNREACHABLE = { host: [1, 3], port: [3, 4], denied: [13, 1], protocol: [2, 3] } as const
export type Unreachable = keyof typeof UNREACHABLE
/** Bytes of an offending packet that are quoted in the reply. */
const QUOTED = { 4: 548, 6: 1200 } as const

type Counters = Readonly<
  Record<'framesIn' | 'framesOut' | 'bytesIn' | 'bytesOut' | 'dropped' | 'opened' | 'refused', Counter>
>

export class GuestLink {
  readonly mtu: number
  /** The packet that arrived last. */
  readonly packet = new Packet()
  readonly writer = new FrameWriter()
  /** The guest's card, once it is connected. */
  card: CableEnd | undefined
  guestMac: Uint8Array
  readonly guest4 = Address4.guest
  guest6: Uint8Array | undefined
  /** Whether the cable is plugged. */
  on = true
  counters: Counters | undefined
  connections: Gauge | undefined

  constructor(mtu: number, guestMac: Uint8Array) {
    this.mtu = mtu
    this.guestMac = guestMac
  }

  connect(card: CableEnd, metrics: NetworkSurroundings['metrics']): void {
    this.card = card
    const scope = metrics.scope('network')
    this.counters = {
      framesIn: scope.counter('framesIn', 'frames from the guest'),
      framesOut: scope.counter('framesOut', 'frames to the guest'),
      bytesIn: scope.counter('bytesIn', 'bytes of frames from the guest', 'bytes'),
      bytesOut: scope.counter('bytesOut', 'bytes of frames to the guest', 'bytes'),
      dropped: scope.counter('dropped', 'frames that went nowhere'),
      opened: scope.counter('opened', 'TCP connections opened'),
      refused: scope.counter('refused', 'connections and datagrams refused by host or policy'),
    }
    this.connections = scope.gauge('connections', 'TCP connections')
  }

  /** Counts a frame from the guest. False: it is dropped. Otherwise `packet` describes it. */
  receive(frame: Uint8Array): boolean {
    const counters = this.counters!
    counters.framesIn.value++
    counters.bytesIn.value += frame.length
    if (this.on && this.packet.parse(frame)) return true
    counters.dropped.value++
    return false
  }

  /** Sends the frame in `writer` to the guest. False: the card has no room. */
  send(length: number): boolean {
    if (!this.card || !this.on) return true
    const { bytes, work } = this.writer
    if (!this.card.receive(bytes.subarray(0, length), work)) return false
    const counters = this.counters!
    counters.framesOut.value++
    counters.bytesOut.value += length
    return true
  }

  drop(): void {
    this.counters!.dropped.value++
  }

  /** Notes the guest's addresses, for connections that the host opens. */
  learn(): void {
    const { bytes, addresses, version } = this.packet
    // A broadcast or multicast address belongs to no host.
    if (bytes[6]! & 1) return
    if (!sameMac(bytes, this.guestMac)) this.guestMac = bytes.slice(6, 12)
    if (
      version === 6 &&
      bytes[addresses] === Address6.network[0] &&
      (!this.guest6 || !this.packet.is(addresses, this.guest6))
    )
      this.guest6 = this.packet.copy(addresses)
  }

  isMulticast(): boolean {
    const { bytes, destination, version } = this.packet
    return version === 6 ? bytes[destination] === 0xff : bytes[destination]! >= 224
  }

  /** MAC addresses for an answer to the packet. */
  backTo(): { destination: Uint8Array; source: Uint8Array } {
    return { destination: this.packet.bytes.slice(6, 12), source: GATEWAY_MAC }
  }

  /** Answers the packet by "destination unreachable". */
  unreachable(why: Unreachable): void {
    this.counters!.refused.value++
    const packet = this.packet
    if (this.isMulticast() || packet.isFor(Address4.limitedBroadcast) || packet.isFor(Address4.broadcast))
      return this.drop()
    const { version } = packet
    if (version === 0) return this.drop()
    const quoted = packet.bytes.slice(packet.header, Math.min(packet.end, packet.header + QUOTED[version]))
    this.sendUnreachable(why, this.backTo().destination, packet.copy(packet.addresses), quoted)
  }

  sendUnreachable(why: Unreachable, mac: Uint8Array, to: Uint8Array, quoted: Uint8Array): void {
    const four = to.length === 4
    const writer = this.writer
    writer.ip(
      { destination: mac, source: GATEWAY_MAC },
      four ? Address4.gateway : Address6.gateway,
      to,
      four ? Protocol.icmp : Protocol.icmpv6,
    )
    const at = writer.payload
    writer.bytes[at] = four ? Icmp4.unreachable : Icmp6.unreachable
    writer.bytes[at + 1] = UNREACHABLE[why][four ? 0 : 1]
    writer.view.setUint16(at + 2, 0)
    writer.view.setUint32(at + 4, 0)
    writer.bytes.set(quoted, at + ICMP_HEADER)
    const end = at + ICMP_HEADER + quoted.length
    if (four) {
      writer.finish(end)
      writer.view.setUint16(at + 2, ~fold(sum(writer.bytes, at, end)) & 0xffff)
    } else writer.finishTransport(end, 2, false)
    this.send(end)
  }
}

const sameMac = (bytes: Uint8Array, mac: Uint8Array): boolean => {
  for (let index = 0; index < 6; index++) if (bytes[6 + index] !== mac[index]) return false
  return true
}
