/**
 * The user-mode network: the guest's only neighbour, gateway and servers at once. What the guest sends beyond leaves through sockets of the host, as any
 * program's would: no privilege is needed, and none gained. Bounded in all that it keeps; never throws for what arrives. @hot
 */

import { ALL_OFFLOADS, LONGEST_FRAME } from '@nonroot/contracts'
import type {
  AcceptedStream,
  CableEnd,
  ConnectError,
  Counter,
  FrameWork,
  Gauge,
  HostNetwork,
  Listener,
  Log,
  NetworkBackend,
  NetworkRequest,
  NetworkSurroundings,
  SocketStream,
  Timer,
} from '@nonroot/contracts'
import ipaddr from 'ipaddr.js'
import { Flag, LEAST_WINDOW, MOST_WINDOW, Option, OWN_SCALE } from '../tcp/facts.ts'
import { Segment, TCP_HEADER } from '../tcp/segment.ts'
import { isBefore } from '../tcp/sequence.ts'
import { fold, pseudoHeader, sum } from '../wire/checksum.ts'
import { ETHERNET, EtherType, ICMP_HEADER, IPV4_HEADER, IPV6_HEADER, Protocol, UDP_HEADER } from '../wire/facts.ts'
import { FrameWriter } from '../wire/frame-writer.ts'
import { Packet } from '../wire/packet.ts'
import { Address4, Address6, GATEWAY_MAC, sameBytes } from './addresses.ts'
import { answerDhcp, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, dhcpDestination } from './dhcp.ts'
import { answerDhcp6, DHCP6_CLIENT_PORT, DHCP6_SERVER_PORT } from './dhcp6.ts'
import { DNS_PORT } from './dns.ts'
import { DnsForwarder } from './dns-forwarder.ts'
import { FlowTable } from './flow-table.ts'
import { parseForward } from './forwards.ts'
import type { Forward } from './forwards.ts'
import { answerArp, answerSolicitation, Icmp6, writeRouterAdvertisement } from './neighbours.ts'
import { Policy } from './policy.ts'
import { TcpFlow } from './tcp-flow.ts'
import type { FlowKey, FlowOwner } from './tcp-flow.ts'
import { UdpFlows } from './udp-flows.ts'
import type { UdpFlow, UdpOwner } from './udp-flows.ts'

/** TCP connections of a guest. */
const MOST_FLOWS = 4096
/** Of them, those that the host is still connecting. */
const MOST_OPENING = 512
/** Bytes that all connections together should buffer each way: each gets its share when it is opened. */
const BUFFER_BUDGET = 64 * 1024 * 1024
const EXPIRE_UDP_NS = 10e9
/** A timer that is later than this was held up by the host. */
const MOST_LATE_NS = 20e6
/** Ports of the gateway that forwarded connections come from, where the client's own is taken. */
const FIRST_PORT = 49152
const Icmp4 = { echoReply: 0, unreachable: 3, echo: 8 } as const
/** Codes of "destination unreachable", for IPv4 and IPv6. */
const UNREACHABLE = { host: [1, 3], port: [3, 4], denied: [13, 1], protocol: [2, 3] } as const
/** Bytes of an offending packet that are quoted in the reply. */
const QUOTED = { 4: 548, 6: 1200 } as const

const addresses4 = [Address4.gateway, Address4.dns]
const addresses6 = [Address6.gateway, Address6.dns, Address6.router]

export interface UserNetworkParts {
  readonly host: HostNetwork
  readonly macAddress: Uint8Array
}

export class UserNetwork implements NetworkBackend, CableEnd, FlowOwner, UdpOwner {
  readonly offloads = ALL_OFFLOADS
  readonly macAddress: Uint8Array
  readonly mtu: number
  readonly #host: HostNetwork
  readonly #policy: Policy
  readonly #forwards: readonly Forward[]
  readonly #listeners: { close(): unknown }[] = []
  readonly #flows = new FlowTable()
  readonly #udp: UdpFlows
  readonly #dns: DnsForwarder
  readonly #packet = new Packet()
  readonly #segment = new Segment()
  readonly #writer = new FrameWriter()
  readonly #sackBlocks = new Uint32Array(8)
  readonly #random = new Uint8Array(4)
  /** Flows that have an acknowledgement to send, or wait for room. */
  #touched: TcpFlow[] = []
  #touchedBefore: TcpFlow[] = []
  #opening = 0
  #guestMac: Uint8Array
  #guest4 = Address4.guest
  #guest6: Uint8Array | undefined
  #on = true
  #nextPort = FIRST_PORT
  #card: CableEnd | undefined
  #clock: NetworkSurroundings['clock'] | undefined
  #log: Log | undefined
  #timer: Timer | undefined
  #timerAt = Infinity
  #postponed = false
  #udpExpiryNs = 0
  #closed = false
  #counters:
    | Readonly<Record<'framesIn' | 'framesOut' | 'bytesIn' | 'bytesOut' | 'dropped' | 'opened' | 'refused', Counter>>
    | undefined
  #connections: Gauge | undefined

  constructor(request: NetworkRequest, { host, macAddress }: UserNetworkParts) {
    this.macAddress = macAddress
    this.mtu = request.mtu ?? 1500
    this.#host = host
    this.#guestMac = macAddress
    this.#policy = new Policy(request, () => host.nameServers()[0])
    this.#forwards = (request.forward ?? []).map(parseForward)
    this.#udp = new UdpFlows(this, host, this.#policy)
    this.#dns = new DnsForwarder(host, () => this.nowNs())
  }

  /** Listen on the forwarded ports. Rejects with what the host says. */
  async listen(): Promise<void> {
    for (const forward of this.#forwards) {
      const at = { host: forward.host, port: forward.port }
      if (forward.protocol === 'tcp')
        this.#listeners.push(await this.#host.listen(at, (accepted) => this.#accepted(accepted, forward)))
      else this.#listeners.push(await this.#forwardUdp(forward))
    }
  }

  /** The ports that forwards listen on, in their order: for those that asked for any. */
  get forwardedPorts(): number[] {
    return this.#listeners.map((listener) => (listener as Listener).port)
  }

  connect(card: CableEnd, { clock, metrics, log }: NetworkSurroundings): CableEnd {
    this.#card = card
    this.#clock = clock
    this.#log = log
    const scope = metrics.scope('network')
    this.#counters = {
      framesIn: scope.counter('framesIn', 'frames from the guest'),
      framesOut: scope.counter('framesOut', 'frames to the guest'),
      bytesIn: scope.counter('bytesIn', 'bytes of frames from the guest', 'bytes'),
      bytesOut: scope.counter('bytesOut', 'bytes of frames to the guest', 'bytes'),
      dropped: scope.counter('dropped', 'frames that went nowhere'),
      opened: scope.counter('opened', 'TCP connections opened'),
      refused: scope.counter('refused', 'connections and datagrams refused by host or policy'),
    }
    this.#connections = scope.gauge('connections', 'TCP connections')
    return this
  }

  // From the guest

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    const counters = this.#counters!
    counters.framesIn.value++
    counters.bytesIn.value += frame.length
    if (!this.#on || !this.#packet.parse(frame)) counters.dropped.value++
    else this.#dispatch(work)
    return true
  }

  #dispatch(work: Readonly<FrameWork>): void {
    const packet = this.#packet
    if (packet.etherType === EtherType.arp) return this.#arp()
    if (packet.version === 0 || packet.fragment) return this.#drop()
    // What has its checksum left to do came over memory only.
    if (work.checksumStart < 0 && !this.#checksumFits()) return this.#drop()
    this.#learn()
    switch (packet.protocol) {
      case Protocol.tcp:
        return this.#tcp()
      case Protocol.udp:
        return this.#udpDatagram()
      case Protocol.icmp:
        return packet.version === 4 ? this.#icmp4() : this.#drop()
      case Protocol.icmpv6:
        return packet.version === 6 ? this.#icmp6() : this.#drop()
      default:
        this.#unreachable('protocol')
    }
  }

  #drop(): void {
    this.#counters!.dropped.value++
  }

  #checksumFits(): boolean {
    const { protocol, bytes, view, payload, end, addresses, addressLength, version } = this.#packet
    if (protocol === Protocol.icmp) return fold(sum(bytes, payload, end)) === 0xffff
    if (protocol !== Protocol.tcp && protocol !== Protocol.udp && protocol !== Protocol.icmpv6) return true
    // RFC 768: zero says that there is none; IPv6 has always one.
    if (protocol === Protocol.udp && version === 4 && payload + UDP_HEADER <= end && view.getUint16(payload + 6) === 0)
      return true
    return (
      fold(sum(bytes, payload, end, pseudoHeader(bytes, addresses, 2 * addressLength, protocol, end - payload))) ===
      0xffff
    )
  }

  /** Where the guest is, for what the host begins. */
  #learn(): void {
    const { bytes, addresses, version } = this.#packet
    // A broadcast or multicast address belongs to no host.
    if (bytes[6]! & 1) return
    if (!sameMac(bytes, this.#guestMac)) this.#guestMac = bytes.slice(6, 12)
    if (
      version === 6 &&
      bytes[addresses] === Address6.network[0] &&
      (!this.#guest6 || !this.#packet.is(addresses, this.#guest6))
    )
      this.#guest6 = this.#packet.copy(addresses)
  }

  #arp(): void {
    const length = answerArp(this.#packet, this.#writer, (ip, mac) => {
      if (sameBytes(ip, this.#guest4)) this.#guestMac = mac
    })
    if (length > 0) this.#send(length)
  }

  #icmp4(): void {
    const packet = this.#packet
    const { bytes, payload, end } = packet
    if (end - payload < ICMP_HEADER || bytes[payload] !== Icmp4.echo) return this.#drop()
    const ours = addresses4.find((address) => packet.isFor(address))
    // Programs without privilege send no echo requests of their own.
    if (!ours) return this.#unreachable('denied')
    this.#echo(ours, Protocol.icmp, Icmp4.echoReply)
  }

  #icmp6(): void {
    const packet = this.#packet
    const { bytes, payload, end } = packet
    if (end - payload < ICMP_HEADER) return this.#drop()
    const type = bytes[payload]
    if (type === Icmp6.solicit) {
      const length = answerSolicitation(packet, this.#writer)
      if (length > 0) this.#send(length)
    } else if (type === Icmp6.routerSolicit) this.#send(writeRouterAdvertisement(this.#writer, this.mtu))
    else if (type === Icmp6.echo) {
      const ours = addresses6.find((address) => packet.isFor(address))
      if (ours) this.#echo(ours, Protocol.icmpv6, Icmp6.echoReply)
      else if (!this.#isMulticast()) this.#unreachable('denied')
    } else this.#drop()
  }

  #isMulticast(): boolean {
    const { bytes, destination, version } = this.#packet
    return version === 6 ? bytes[destination] === 0xff : bytes[destination]! >= 224
  }

  #echo(ours: Uint8Array, protocol: number, type: number): void {
    const packet = this.#packet
    const { bytes, payload, end } = packet
    const writer = this.#writer
    writer.ip(this.#backTo(), ours, packet.copy(packet.addresses), protocol)
    const at = writer.payload
    writer.bytes.set(bytes.subarray(payload, end), at)
    writer.bytes[at] = type
    const last = at + end - payload
    this.#finishIcmp(last)
    this.#send(last)
  }

  /** ICMP has no pseudo header, ICMPv6 has. */
  #finishIcmp(end: number): void {
    const writer = this.#writer
    writer.view.setUint16(writer.payload + 2, 0)
    if (this.#packet.version === 6) return writer.finishTransport(end, 2, false)
    writer.finish(end)
    writer.view.setUint16(writer.payload + 2, ~fold(sum(writer.bytes, writer.payload, end)) & 0xffff)
  }

  /** MAC addresses of an answer to the packet. */
  #backTo(): { destination: Uint8Array; source: Uint8Array } {
    return { destination: this.#packet.bytes.slice(6, 12), source: GATEWAY_MAC }
  }

  /** "Destination unreachable", about the packet. */
  #unreachable(why: keyof typeof UNREACHABLE): void {
    this.#counters!.refused.value++
    const packet = this.#packet
    if (this.#isMulticast() || packet.isFor(Address4.everyone) || packet.isFor(Address4.broadcast)) return this.#drop()
    const { version } = packet
    if (version === 0) return this.#drop()
    const quoted = packet.bytes.slice(packet.header, Math.min(packet.end, packet.header + QUOTED[version]))
    this.#sendUnreachable(why, this.#backTo().destination, packet.copy(packet.addresses), quoted)
  }

  #sendUnreachable(why: keyof typeof UNREACHABLE, mac: Uint8Array, to: Uint8Array, quoted: Uint8Array): void {
    const four = to.length === 4
    const writer = this.#writer
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
    this.#send(end)
  }

  // UDP

  #udpDatagram(): void {
    const packet = this.#packet
    const { view, payload, end, bytes } = packet
    if (end - payload < UDP_HEADER) return this.#drop()
    const length = view.getUint16(payload + 4)
    if (length < UDP_HEADER || payload + length > end) return this.#drop()
    const sourcePort = view.getUint16(payload)
    const port = view.getUint16(payload + 2)
    const datagram = bytes.subarray(payload + UDP_HEADER, payload + length)
    if (packet.version === 4 && port === DHCP_SERVER_PORT && this.#isForServer()) return this.#dhcp(datagram)
    if (packet.version === 6 && port === DHCP6_SERVER_PORT) return this.#dhcp6(datagram)
    if (this.#isMulticast() || packet.isFor(Address4.everyone) || packet.isFor(Address4.broadcast)) return this.#drop()
    const guest = packet.copy(packet.addresses)
    const mac = bytes.slice(6, 12)
    const dns = packet.version === 4 ? Address4.dns : Address6.dns
    if (port === DNS_PORT && packet.isFor(dns)) {
      this.#dns.ask(datagram, (answer) => {
        this.#sendUdp(mac, dns, DNS_PORT, guest, sourcePort, answer)
        this.#card?.flush()
      })
      return
    }
    const refused = this.#udp.send(
      { guest, guestPort: sourcePort, mac },
      packet.copy(packet.destination),
      port,
      datagram,
    )
    if (refused) this.#unreachable(refused === 'denied' ? 'denied' : 'port')
    else this.#expireUdpLater()
  }

  #isForServer(): boolean {
    return this.#packet.isFor(Address4.everyone) || this.#packet.isFor(Address4.gateway)
  }

  #dhcp6(message: Uint8Array): void {
    const answer = answerDhcp6(message)
    if (!answer) return this.#drop()
    const packet = this.#packet
    const mac = packet.bytes.slice(6, 12)
    this.#sendUdp(mac, Address6.router, DHCP6_SERVER_PORT, packet.copy(packet.addresses), DHCP6_CLIENT_PORT, answer)
  }

  #dhcp(message: Uint8Array): void {
    const answer = answerDhcp(message, this.mtu)
    if (!answer) return this.#drop()
    this.#sendUdp(
      this.#packet.bytes.slice(6, 12),
      Address4.gateway,
      DHCP_SERVER_PORT,
      dhcpDestination(message),
      DHCP_CLIENT_PORT,
      answer,
    )
  }

  /** Larger than a frame is dropped. */
  #sendUdp(
    mac: Uint8Array,
    from: Uint8Array,
    fromPort: number,
    to: Uint8Array,
    toPort: number,
    bytes: Uint8Array,
  ): void {
    const header = (to.length === 4 ? IPV4_HEADER : IPV6_HEADER) + UDP_HEADER
    if (header + bytes.length > this.mtu) return this.#drop()
    const writer = this.#writer
    writer.ip({ destination: mac, source: GATEWAY_MAC }, from, to, Protocol.udp)
    writer.bytes.set(bytes, writer.udpPayload)
    const end = writer.udpPayload + bytes.length
    writer.finishUdp(fromPort, toPort, end, this.#card!.offloads.checksum)
    this.#send(end)
  }

  sendDatagram(flow: UdpFlow, from: Uint8Array, fromPort: number, bytes: Uint8Array): void {
    this.#sendUdp(flow.mac, from, fromPort, flow.guest, flow.guestPort, bytes)
    this.#card?.flush()
  }

  portUnreachable({ guest, guestPort, remote, remotePort, mac }: UdpFlow): void {
    // What an error quotes is the packet's beginning: its headers are enough for the guest to find the socket.
    const writer = this.#writer
    writer.ip({ destination: mac, source: mac }, guest, remote, Protocol.udp)
    writer.finishUdp(guestPort, remotePort, writer.udpPayload, false)
    this.#sendUnreachable('port', mac, guest, writer.bytes.slice(ETHERNET, writer.udpPayload))
    this.#card?.flush()
  }

  #expireUdpLater(): void {
    if (this.#udpExpiryNs > this.nowNs()) return
    this.#udpExpiryNs = this.nowNs() + EXPIRE_UDP_NS
    this.rearm(this.#udpExpiryNs)
  }

  async #forwardUdp({ host, port, guestPort }: Forward): Promise<{ close(): void; port: number }> {
    /** Clients by the gateway's port that the guest sees. */
    const clients = new Map<number, { host: string; port: number }>()
    const family = host.includes(':') ? 6 : 4
    const socket = await this.#host.datagrams(
      family,
      {
        datagram: (bytes, from, fromPort) => {
          const to = family === 4 ? this.#guest4 : this.#guest6
          if (!to || !this.#card) return
          clients.delete(fromPort)
          clients.set(fromPort, { host: from, port: fromPort })
          if (clients.size > MOST_OPENING) clients.delete(clients.keys().next().value!)
          this.#sendUdp(
            this.#guestMac,
            family === 4 ? Address4.gateway : Address6.gateway,
            fromPort,
            to,
            guestPort,
            bytes,
          )
          this.#card.flush()
        },
        refused: () => {},
      },
      { host, port },
    )
    this.#udp.forwards.set(`${family} ${guestPort}`, (bytes, toPort) => {
      const client = clients.get(toPort)
      if (client) socket.send(bytes, client.host, client.port)
      return client !== undefined
    })
    return { close: () => socket.close(), port: socket.port }
  }

  // TCP

  #tcp(): void {
    const packet = this.#packet
    const segment = this.#segment
    if (!segment.parse(packet.bytes, packet.view, packet.payload, packet.end) || this.#isMulticast())
      return this.#drop()
    const flow = this.#flows.find(packet, segment.sourcePort, segment.destinationPort)
    const asks = (segment.flags & (Flag.syn | Flag.ack | Flag.rst)) === Flag.syn
    if (flow) {
      const { connection } = flow
      if (connection.state !== 'timeWait' || !asks || !isBefore(connection.receiver.next, segment.sequence)) {
        connection.receive(segment)
        return this.touched(flow)
      }
      // RFC 9293, "TIME-WAIT": a new connection may follow at once if its sequence numbers are beyond the old one's.
      connection.finish()
    }
    if (asks) this.#asked()
    else if (!(segment.flags & Flag.rst)) this.#reset()
  }

  /** RFC 9293, "Reset Generation": there is no such connection. */
  #reset(): void {
    const packet = this.#packet
    const { flags, acknowledgement, sequence, length, sourcePort, destinationPort } = this.#segment
    const answer = flags & Flag.ack ? Flag.rst : Flag.rst | Flag.ack
    const next = sequence + length + (flags & Flag.syn ? 1 : 0) + (flags & Flag.fin ? 1 : 0)
    const writer = this.#writer
    writer.ip(this.#backTo(), packet.copy(packet.destination), packet.copy(packet.addresses), Protocol.tcp)
    this.#tcpHeader(
      destinationPort,
      sourcePort,
      flags & Flag.ack ? acknowledgement : 0,
      flags & Flag.ack ? 0 : next >>> 0,
      answer,
      0,
      TCP_HEADER,
    )
    const end = writer.payload + TCP_HEADER
    writer.finishTransport(end, 16, this.#card!.offloads.checksum)
    this.#send(end)
  }

  #tcpHeader(
    from: number,
    to: number,
    sequence: number,
    acknowledgement: number,
    flags: number,
    window: number,
    length: number,
  ): void {
    const { view, payload } = this.#writer
    view.setUint16(payload, from)
    view.setUint16(payload + 2, to)
    view.setUint32(payload + 4, sequence)
    view.setUint32(payload + 8, acknowledgement)
    view.setUint16(payload + 12, ((length / 4) << 12) | flags)
    view.setUint16(payload + 14, window)
    view.setUint32(payload + 16, 0)
  }

  /** The guest wants a connection. */
  #asked(): void {
    const packet = this.#packet
    const segment = this.#segment
    const remote = packet.copy(packet.destination)
    const verdict = this.#policy.decide(remote, segment.destinationPort)
    if ('refused' in verdict) {
      this.#counters!.refused.value++
      return verdict.refused === 'denied' ? this.#unreachable('denied') : this.#reset()
    }
    // It asks again.
    if (this.#flows.size >= MOST_FLOWS || this.#opening >= MOST_OPENING) return this.#drop()
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
    const cut = key.guest.length === 4 ? this.#card!.offloads.segment4 : this.#card!.offloads.segment6
    const mss = this.mtu - header
    const flow = new TcpFlow(this, key, mac, {
      mss,
      // Options are part of the headers.
      most: cut ? LONGEST_FRAME - ETHERNET - header - 40 : mss,
      window: Math.min(MOST_WINDOW, Math.max(LEAST_WINDOW, share)),
      initial: new DataView(this.#random.buffer).getUint32(0),
    })
    this.#flows.add(flow)
    this.#counters!.opened.value++
    this.#connections!.value = this.#flows.size
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
    this.#card?.flush()
  }

  #failed(flow: TcpFlow, syn: Segment, problem: ConnectError['problem'], quoted: Uint8Array): void {
    this.gone(flow)
    if (this.#closed) return
    this.#counters!.refused.value++
    const { guest, guestPort, remote, remotePort } = flow.key
    if (problem === 'unreachable' || problem === 'denied')
      this.#sendUnreachable(problem === 'denied' ? 'denied' : 'host', flow.mac, guest, quoted)
    else if (problem !== 'timedOut') {
      const writer = this.#writer
      writer.ip({ destination: flow.mac, source: GATEWAY_MAC }, remote, guest, Protocol.tcp)
      this.#tcpHeader(remotePort, guestPort, 0, (syn.sequence + 1) >>> 0, Flag.rst | Flag.ack, 0, TCP_HEADER)
      const end = writer.payload + TCP_HEADER
      writer.finishTransport(end, 16, this.#card!.offloads.checksum)
      this.#send(end)
    }
    this.#card?.flush()
  }

  /** A program of the host came in by a forwarded port. */
  #accepted({ stream, host, port }: AcceptedStream, { guestPort }: Forward): void {
    const six = ipaddr.isValid(host) && ipaddr.parse(host).kind() === 'ipv6' && !host.startsWith('::ffff:')
    const guest = six && this.#guest6 ? this.#guest6 : this.#guest4
    if (!this.#card || this.#closed || this.#flows.size >= MOST_FLOWS) return stream.destroy()
    const remote = guest.length === 4 ? Address4.gateway : Address6.gateway
    const flow = this.#newFlow({ guest, guestPort, remote, remotePort: this.#freePort(port) }, this.#guestMac)
    flow.join(stream)
    flow.connection.open()
    this.touched(flow)
    this.#card.flush()
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
    if (!this.#card) return true
    const writer = this.#writer
    const { key, connection } = flow
    const { sender, receiver } = connection
    writer.ip({ destination: flow.mac, source: GATEWAY_MAC }, key.remote, key.guest, Protocol.tcp)
    const options = flags & Flag.syn ? this.#synOptions(flow, flags) : this.#sackOptions(flow)
    const header = TCP_HEADER + options
    const window = flags & Flag.rst ? 0 : receiver.takeWindow(connection.scaled && !(flags & Flag.syn))
    this.#tcpHeader(
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
    writer.finishTransport(start + length, 16, this.#card.offloads.checksum || length > sender.mss)
    return this.#send(start + length)
  }

  /** Written behind the header. Gives their length. */
  #synOptions({ connection }: TcpFlow, flags: number): number {
    const { view, payload } = this.#writer
    const at = payload + TCP_HEADER
    view.setUint32(at, (Option.mss << 24) | (4 << 16) | connection.mss)
    const answers = (flags & Flag.ack) !== 0
    const scale = !answers || connection.scaled
    const sack = !answers || connection.sender.sack
    view.setUint32(at + 4, scale ? (Option.nop << 24) | (Option.windowScale << 16) | (3 << 8) | OWN_SCALE : 0x0101_0101)
    view.setUint32(
      at + 8,
      sack ? (Option.nop << 24) | (Option.nop << 16) | (Option.sackPermitted << 8) | 2 : 0x0101_0101,
    )
    return 12
  }

  #sackOptions({ connection }: TcpFlow): number {
    if (!connection.sender.sack || connection.receiver.ranges.count === 0) return 0
    const blocks = this.#sackBlocks
    const count = connection.receiver.sackBlocks(blocks, 4)
    const { view, payload } = this.#writer
    const at = payload + TCP_HEADER
    view.setUint32(at, (Option.nop << 24) | (Option.nop << 16) | (Option.sack << 8) | (2 + 8 * count))
    for (let index = 0; index < 2 * count; index++) view.setUint32(at + 4 + 4 * index, blocks[index]!)
    return 4 + 8 * count
  }

  touched(flow: TcpFlow): void {
    const { connection } = flow
    if (flow.listed || !(connection.acknowledge || connection.blocked)) return
    flow.listed = true
    this.#touched.push(flow)
  }

  hostActed(flow: TcpFlow): void {
    this.touched(flow)
    this.#card?.flush()
  }

  gone(flow: TcpFlow): void {
    this.#flows.remove(flow)
    if (this.#connections) this.#connections.value = this.#flows.size
  }

  // The cable

  #send(length: number): boolean {
    if (!this.#card || !this.#on) return true
    const { bytes, work } = this.#writer
    if (!this.#card.receive(bytes.subarray(0, length), work)) return false
    const counters = this.#counters!
    counters.framesOut.value++
    counters.bytesOut.value += length
    return true
  }

  flush(): void {
    this.#settle(false)
    this.#card?.flush()
  }

  ready(): void {
    this.#settle(true)
    this.#card?.flush()
  }

  /** What waited for the end of the batch, and, with room, what waited for that. */
  #settle(room: boolean): void {
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

  carrier(on: boolean): void {
    this.#on = on
  }

  // Time

  nowNs(): number {
    return this.#clock?.nowNs() ?? 0
  }

  rearm(deadline: number): void {
    const clock = this.#clock
    if (!clock || deadline >= this.#timerAt || this.#closed) return
    if (this.#timer) clock.cancel(this.#timer)
    this.#timerAt = deadline
    this.#timer = clock.setTimer(deadline, this.#expire)
  }

  readonly #expire = (): void => {
    const now = this.nowNs()
    const late = now - this.#timerAt
    this.#timer = undefined
    this.#timerAt = Infinity
    // The VM did not run meanwhile: what the guest would have answered it can answer only now.
    if (late > MOST_LATE_NS && !this.#postponed) {
      this.#postponed = true
      return this.rearm(now + MOST_LATE_NS)
    }
    this.#postponed = false
    let next = Infinity
    this.#flows.forEach((flow) => {
      const { connection } = flow
      if (connection.deadline <= now) {
        connection.expire()
        this.touched(flow)
      }
      next = Math.min(next, connection.deadline)
    })
    if (this.#udpExpiryNs <= now && this.#udp.size > 0) {
      this.#udp.expire()
      this.#udpExpiryNs = this.#udp.size > 0 ? now + EXPIRE_UDP_NS : 0
    }
    if (this.#udpExpiryNs > now) next = Math.min(next, this.#udpExpiryNs)
    if (next < Infinity) this.rearm(next)
    this.#card?.flush()
  }

  async close(): Promise<void> {
    this.#closed = true
    if (this.#timer) this.#clock?.cancel(this.#timer)
    for (const listener of this.#listeners) await listener.close()
    this.#flows.forEach((flow) => flow.connection.abort())
    this.#udp.close()
    this.#dns.close()
    this.#log?.debug('network closed')
  }
}

const sameMac = (bytes: Uint8Array, mac: Uint8Array): boolean => {
  for (let index = 0; index < 6; index++) if (bytes[6 + index] !== mac[index]) return false
  return true
}
