/** The guest's TCP connections: opened by the guest or by clients of forwarded ports, each joined to a socket of the host. @hot */

import { LONGEST_FRAME } from '@nonroot/contracts'
import type { AcceptedStream, ConnectError, HostNetwork, SocketStream } from '@nonroot/contracts'
import ipaddr from 'ipaddr.js'
import { Flag, LEAST_WINDOW, MOST_WINDOW } from '../tcp/facts.ts'
import { Segment, TCP_HEADER } from '../tcp/segment.ts'
import { isBefore } from '../tcp/sequence.ts'
import { ETHERNET, IPV4_HEADER, IPV6_HEADER, Protocol } from '../wire/facts.ts'
import { Address4, Address6, GATEWAY_MAC } from './addresses.ts'
import { FlowTable } from './flow-table.ts'
import type { Forward } from './forwards.ts'
import type { GuestLink } from './guest-link.ts'
import type { Policy } from './policy.ts'
import { TcpFlow } from './tcp-flow.ts'
import type { FlowKey, FlowOwner } from './tcp-flow.ts'
import { writeSackOptions, writeSynOptions, writeTcpHeader } from './tcp-writer.ts'

/** TCP connections of a guest. */
const MOST_FLOWS = 4096
/** Of them, those that the host is still connecting. */
const MOST_OPENING = 512
/** Bytes that all connections together should buffer each way: each gets its share when it is opened. */
const BUFFER_BUDGET = 64 * 1024 * 1024
/** Ports of the gateway that forwarded connections come from, where the client's own is taken. */
const FIRST_PORT = 49152

export interface TcpTime {
  nowNs(): number
  /** `expire` is called at this time at the latest. */
  rearm(deadline: number): void
}

export class TcpFlows implements FlowOwner {
  readonly #link: GuestLink
  readonly #host: HostNetwork
  readonly #policy: Policy
  readonly #time: TcpTime
  readonly #flows = new FlowTable()
  readonly #segment = new Segment()
  readonly #random = new Uint8Array(4)
  /** Flows that have an acknowledgement to send, or wait for room. */
  #touched: TcpFlow[] = []
  #touchedBefore: TcpFlow[] = []
  #opening = 0
  #nextPort = FIRST_PORT
  #closed = false

  constructor(link: GuestLink, host: HostNetwork, policy: Policy, time: TcpTime) {
    this.#link = link
    this.#host = host
    this.#policy = policy
    this.#time = time
  }

  /** The link's packet is a TCP segment. */
  receive(): void {
    const packet = this.#link.packet
    const segment = this.#segment
    if (!segment.parse(packet.bytes, packet.view, packet.payload, packet.end) || this.#link.isMulticast())
      return this.#link.drop()
    const flow = this.#flows.find(packet, segment.sourcePort, segment.destinationPort)
    const opens = (segment.flags & (Flag.syn | Flag.ack | Flag.rst)) === Flag.syn
    if (flow) {
      const { connection } = flow
      if (connection.state !== 'timeWait' || !opens || !isBefore(connection.receiver.next, segment.sequence)) {
        connection.receive(segment)
        return this.touched(flow)
      }
      // RFC 9293, "TIME-WAIT": a new connection may follow at once if its sequence numbers are beyond the old one's.
      connection.finish()
    }
    if (opens) this.#accept()
    else if (!(segment.flags & Flag.rst)) this.#reset()
  }

  /** RFC 9293, "Reset Generation": there is no such connection. */
  #reset(): void {
    const packet = this.#link.packet
    const { flags, acknowledgement, sequence, length, sourcePort, destinationPort } = this.#segment
    const answer = flags & Flag.ack ? Flag.rst : Flag.rst | Flag.ack
    const next = sequence + length + (flags & Flag.syn ? 1 : 0) + (flags & Flag.fin ? 1 : 0)
    const writer = this.#link.writer
    writer.ip(this.#link.backTo(), packet.copy(packet.destination), packet.copy(packet.addresses), Protocol.tcp)
    writeTcpHeader(
      writer,
      destinationPort,
      sourcePort,
      flags & Flag.ack ? acknowledgement : 0,
      flags & Flag.ack ? 0 : next >>> 0,
      answer,
      0,
      TCP_HEADER,
    )
    const end = writer.payload + TCP_HEADER
    writer.finishTransport(end, 16, this.#link.card!.offloads.checksum)
    this.#link.send(end)
  }

  /** The guest opens a connection. */
  #accept(): void {
    const packet = this.#link.packet
    const segment = this.#segment
    const remote = packet.copy(packet.destination)
    const verdict = this.#policy.decide(remote, segment.destinationPort)
    if ('refused' in verdict) {
      this.#link.counters!.refused.value++
      return verdict.refused === 'denied' ? this.#link.unreachable('denied') : this.#reset()
    }
    // Too many: the guest sends its SYN again.
    if (this.#flows.size >= MOST_FLOWS || this.#opening >= MOST_OPENING) return this.#link.drop()
    const key = {
      guest: packet.copy(packet.addresses),
      guestPort: segment.sourcePort,
      remote,
      remotePort: segment.destinationPort,
    }
    const flow = this.#newFlow(key, packet.bytes.slice(6, 12))
    const syn = new Segment()
    syn.parse(packet.bytes.slice(0, segment.payload), packet.view, packet.payload, segment.payload)
    const quoted = packet.bytes.slice(packet.header, segment.payload)
    this.#opening++
    void this.#open(flow, verdict.to, syn, quoted)
  }

  #newFlow(key: FlowKey, mac: Uint8Array): TcpFlow {
    this.#host.random(this.#random)
    const share = Math.floor(BUFFER_BUDGET / (this.#flows.size + 1))
    const header = (key.guest.length === 4 ? IPV4_HEADER : IPV6_HEADER) + TCP_HEADER
    const cut = key.guest.length === 4 ? this.#link.card!.offloads.segment4 : this.#link.card!.offloads.segment6
    const mss = this.#link.mtu - header
    const flow = new TcpFlow(this, key, mac, {
      mss,
      // Options are part of the headers.
      most: cut ? LONGEST_FRAME - ETHERNET - header - 40 : mss,
      window: Math.min(MOST_WINDOW, Math.max(LEAST_WINDOW, share)),
      initial: new DataView(this.#random.buffer).getUint32(0),
    })
    this.#flows.add(flow)
    this.#link.counters!.opened.value++
    this.#link.connections!.value = this.#flows.size
    return flow
  }

  async #open(flow: TcpFlow, to: { host: string; port: number }, syn: Segment, quoted: Uint8Array): Promise<void> {
    let stream: SocketStream
    try {
      stream = await this.#host.connect(to)
    } catch (error) {
      this.#opening--
      this.#failed(flow, syn, (error as ConnectError).problem, quoted)
      return
    }
    this.#opening--
    if (this.#closed) return stream.destroy()
    flow.connection.accept(syn)
    flow.join(stream)
    this.touched(flow)
    this.#link.card?.flush()
  }

  #failed(flow: TcpFlow, syn: Segment, problem: ConnectError['problem'], quoted: Uint8Array): void {
    this.gone(flow)
    if (this.#closed) return
    this.#link.counters!.refused.value++
    const { guest, guestPort, remote, remotePort } = flow.key
    if (problem === 'unreachable' || problem === 'denied')
      this.#link.sendUnreachable(problem === 'denied' ? 'denied' : 'host', flow.mac, guest, quoted)
    else if (problem !== 'timedOut') {
      const writer = this.#link.writer
      writer.ip({ destination: flow.mac, source: GATEWAY_MAC }, remote, guest, Protocol.tcp)
      writeTcpHeader(writer, remotePort, guestPort, 0, (syn.sequence + 1) >>> 0, Flag.rst | Flag.ack, 0, TCP_HEADER)
      const end = writer.payload + TCP_HEADER
      writer.finishTransport(end, 16, this.#link.card!.offloads.checksum)
      this.#link.send(end)
    }
    this.#link.card?.flush()
  }

  /** A client connected to a forwarded port. */
  accepted({ stream, host, port }: AcceptedStream, { guestPort }: Forward): void {
    const six = ipaddr.isValid(host) && ipaddr.parse(host).kind() === 'ipv6' && !host.startsWith('::ffff:')
    const guest = six && this.#link.guest6 ? this.#link.guest6 : this.#link.guest4
    if (!this.#link.card || this.#closed || this.#flows.size >= MOST_FLOWS) return stream.destroy()
    const remote = guest.length === 4 ? Address4.gateway : Address6.gateway
    const flow = this.#newFlow({ guest, guestPort, remote, remotePort: this.#freePort(port) }, this.#link.guestMac)
    flow.join(stream)
    flow.connection.open()
    this.touched(flow)
    this.#link.card.flush()
  }

  /** The client's own port, if no other connection can have it; clients of different addresses may have the same. */
  #freePort(wanted: number): number {
    let taken = wanted < 1024
    this.#flows.forEach(({ key }) => (taken ||= key.remotePort === wanted))
    if (!taken) return wanted
    this.#nextPort = this.#nextPort >= 65535 ? FIRST_PORT : this.#nextPort + 1
    return this.#nextPort
  }

  sendSegment(flow: TcpFlow, flags: number, sequence: number, offset: number, length: number): boolean {
    if (!this.#link.card) return true
    const writer = this.#link.writer
    const { key, connection } = flow
    const { sender, receiver } = connection
    writer.ip({ destination: flow.mac, source: GATEWAY_MAC }, key.remote, key.guest, Protocol.tcp)
    const options = flags & Flag.syn ? writeSynOptions(writer, flow, flags) : writeSackOptions(writer, flow)
    const header = TCP_HEADER + options
    const window = flags & Flag.rst ? 0 : receiver.takeWindow(connection.scaled && !(flags & Flag.syn))
    writeTcpHeader(
      writer,
      key.remotePort,
      key.guestPort,
      sequence,
      flags & Flag.ack ? receiver.next : 0,
      flags,
      window,
      header,
    )
    const start = writer.payload + header
    sender.queue.copy(offset, length, writer.bytes, start)
    const { work } = writer
    if (length > sender.mss) {
      work.segmentSize = sender.mss
      work.segmentIp = key.guest.length === 4 ? 4 : 6
    }
    writer.finishTransport(start + length, 16, this.#link.card.offloads.checksum || length > sender.mss)
    return this.#link.send(start + length)
  }

  touched(flow: TcpFlow): void {
    const { connection } = flow
    if (flow.listed || !(connection.acknowledge || connection.blocked)) return
    flow.listed = true
    this.#touched.push(flow)
  }

  hostActed(flow: TcpFlow): void {
    this.touched(flow)
    this.#link.card?.flush()
  }

  gone(flow: TcpFlow): void {
    this.#flows.remove(flow)
    if (this.#link.connections) this.#link.connections.value = this.#flows.size
  }

  /** At the end of a batch: sends acknowledgements; with `room`, also what had found no room. */
  settle(room: boolean): void {
    const flows = this.#touched
    this.#touched = this.#touchedBefore
    for (const flow of flows) {
      flow.listed = false
      if (room) flow.connection.resume()
      else flow.connection.settle()
      this.touched(flow)
    }
    flows.length = 0
    this.#touchedBefore = flows
  }

  nowNs(): number {
    return this.#time.nowNs()
  }
  rearm(deadline: number): void {
    this.#time.rearm(deadline)
  }

  /** Handles what is due; returns when the next is. */
  expire(now: number): number {
    let next = Infinity
    this.#flows.forEach((flow) => {
      const { connection } = flow
      if (connection.deadline <= now) {
        connection.expire()
        this.touched(flow)
      }
      next = Math.min(next, connection.deadline)
    })
    return next
  }

  close(): void {
    this.#closed = true
    this.#flows.forEach((flow) => flow.connection.abort())
  }
}
