/**
 * The user-mode network: gateway, DHCP and DNS server of the guest in one. What the guest sends to other addresses goes through sockets of the host, as
 * any program's traffic: this needs no privilege. All state is bounded; no packet makes it throw. @hot
 */

import { ALL_OFFLOADS } from '@nonroot/contracts'
import type {
  CableEnd,
  FrameWork,
  HostNetwork,
  Listener,
  Log,
  NetworkBackend,
  NetworkRequest,
  NetworkSurroundings,
  Timer,
} from '@nonroot/contracts'
import { fold, sum } from '../wire/checksum.ts'
import { ETHERNET, EtherType, ICMP_HEADER, IPV4_HEADER, IPV6_HEADER, Protocol, UDP_HEADER } from '../wire/facts.ts'
import { isChecksumRight } from '../wire/transport-checksum.ts'
import { Address4, Address6, GATEWAY_MAC, sameBytes } from './addresses.ts'
import { answerDhcp, DHCP_CLIENT_PORT, DHCP_SERVER_PORT, dhcpDestination } from './dhcp.ts'
import { answerDhcp6, DHCP6_CLIENT_PORT, DHCP6_SERVER_PORT } from './dhcp6.ts'
import { DNS_PORT } from './dns.ts'
import { DnsForwarder } from './dns-forwarder.ts'
import { parseForward } from './forwards.ts'
import type { Forward } from './forwards.ts'
import { GuestLink, Icmp4 } from './guest-link.ts'
import { answerArp, answerSolicitation, Icmp6, writeRouterAdvertisement } from './neighbours.ts'
import { Policy } from './policy.ts'
import { TcpFlows } from './tcp-flows.ts'
import { UdpFlows } from './udp-flows.ts'
import type { UdpFlow, UdpOwner } from './udp-flows.ts'

const EXPIRE_UDP_NS = 10e9
/** A timer that is later than this was held up by the host. */
const MOST_LATE_NS = 20e6
/** Clients of a forwarded UDP port that answers are sent to. */
const MOST_CLIENTS = 512

const addresses4 = [Address4.gateway, Address4.dns]
const addresses6 = [Address6.gateway, Address6.dns, Address6.router]

export interface UserNetworkParts {
  readonly host: HostNetwork
  readonly macAddress: Uint8Array
}

export class UserNetwork implements NetworkBackend, CableEnd, UdpOwner {
  readonly offloads = ALL_OFFLOADS
  readonly macAddress: Uint8Array
  readonly mtu: number
  readonly #host: HostNetwork
  readonly #policy: Policy
  readonly #forwards: readonly Forward[]
  readonly #listeners: { close(): unknown }[] = []
  readonly #link: GuestLink
  readonly #tcp: TcpFlows
  readonly #udp: UdpFlows
  readonly #dns: DnsForwarder
  #clock: NetworkSurroundings['clock'] | undefined
  #log: Log | undefined
  #timer: Timer | undefined
  #timerAt = Infinity
  #postponed = false
  #udpExpiryNs = 0
  #closed = false

  constructor(request: NetworkRequest, { host, macAddress }: UserNetworkParts) {
    this.macAddress = macAddress
    this.mtu = request.mtu ?? 1500
    this.#host = host
    this.#link = new GuestLink(this.mtu, macAddress)
    this.#policy = new Policy(request, () => host.nameServers()[0])
    this.#forwards = (request.forward ?? []).map(parseForward)
    this.#tcp = new TcpFlows(this.#link, host, this.#policy, this)
    this.#udp = new UdpFlows(this, host, this.#policy)
    this.#dns = new DnsForwarder(host, () => this.nowNs())
  }

  /** Listens on the forwarded ports. Rejects with the host's error. */
  async listen(): Promise<void> {
    for (const forward of this.#forwards) {
      const at = { host: forward.host, port: forward.port }
      if (forward.protocol === 'tcp')
        this.#listeners.push(await this.#host.listen(at, (accepted) => this.#tcp.accepted(accepted, forward)))
      else this.#listeners.push(await this.#forwardUdp(forward))
    }
  }

  /** The ports that forwards listen on, in their order: for those that asked for any. */
  get forwardedPorts(): number[] {
    return this.#listeners.map((listener) => (listener as Listener).port)
  }

  connect(card: CableEnd, { clock, metrics, log }: NetworkSurroundings): CableEnd {
    this.#link.connect(card, metrics)
    this.#clock = clock
    this.#log = log
    return this
  }

  // From the guest

  receive(frame: Uint8Array, work: Readonly<FrameWork>): boolean {
    if (this.#link.receive(frame)) this.#dispatch(work)
    return true
  }

  #dispatch(work: Readonly<FrameWork>): void {
    const packet = this.#link.packet
    if (packet.etherType === EtherType.arp) return this.#arp()
    if (packet.version === 0 || packet.fragment) return this.#link.drop()
    // What has its checksum left to do came over memory only.
    if (work.checksumStart < 0 && !isChecksumRight(packet)) return this.#link.drop()
    this.#link.learn()
    switch (packet.protocol) {
      case Protocol.tcp:
        return this.#tcp.receive()
      case Protocol.udp:
        return this.#udpDatagram()
      case Protocol.icmp:
        return packet.version === 4 ? this.#icmp4() : this.#link.drop()
      case Protocol.icmpv6:
        return packet.version === 6 ? this.#icmp6() : this.#link.drop()
      default:
        this.#link.unreachable('protocol')
    }
  }

  #arp(): void {
    const length = answerArp(this.#link.packet, this.#link.writer, (ip, mac) => {
      if (sameBytes(ip, this.#link.guest4)) this.#link.guestMac = mac
    })
    if (length > 0) this.#link.send(length)
  }

  #icmp4(): void {
    const packet = this.#link.packet
    const { bytes, payload, end } = packet
    if (end - payload < ICMP_HEADER || bytes[payload] !== Icmp4.echo) return this.#link.drop()
    const ours = addresses4.find((address) => packet.isFor(address))
    // Programs without privilege send no echo requests of their own.
    if (!ours) return this.#link.unreachable('denied')
    this.#echo(ours, Protocol.icmp, Icmp4.echoReply)
  }

  #icmp6(): void {
    const packet = this.#link.packet
    const { bytes, payload, end } = packet
    if (end - payload < ICMP_HEADER) return this.#link.drop()
    const type = bytes[payload]
    if (type === Icmp6.solicit) {
      const length = answerSolicitation(packet, this.#link.writer)
      if (length > 0) this.#link.send(length)
    } else if (type === Icmp6.routerSolicit) this.#link.send(writeRouterAdvertisement(this.#link.writer, this.mtu))
    else if (type === Icmp6.echo) {
      const ours = addresses6.find((address) => packet.isFor(address))
      if (ours) this.#echo(ours, Protocol.icmpv6, Icmp6.echoReply)
      else if (!this.#link.isMulticast()) this.#link.unreachable('denied')
    } else this.#link.drop()
  }

  #echo(ours: Uint8Array, protocol: number, type: number): void {
    const packet = this.#link.packet
    const { bytes, payload, end } = packet
    const writer = this.#link.writer
    writer.ip(this.#link.backTo(), ours, packet.copy(packet.addresses), protocol)
    const at = writer.payload
    writer.bytes.set(bytes.subarray(payload, end), at)
    writer.bytes[at] = type
    const last = at + end - payload
    this.#finishIcmp(last)
    this.#link.send(last)
  }

  /** ICMP has no pseudo header, ICMPv6 has. */
  #finishIcmp(end: number): void {
    const writer = this.#link.writer
    writer.view.setUint16(writer.payload + 2, 0)
    if (this.#link.packet.version === 6) return writer.finishTransport(end, 2, false)
    writer.finish(end)
    writer.view.setUint16(writer.payload + 2, ~fold(sum(writer.bytes, writer.payload, end)) & 0xffff)
  }

  // UDP

  #udpDatagram(): void {
    const packet = this.#link.packet
    const { view, payload, end, bytes } = packet
    if (end - payload < UDP_HEADER) return this.#link.drop()
    const length = view.getUint16(payload + 4)
    if (length < UDP_HEADER || payload + length > end) return this.#link.drop()
    const sourcePort = view.getUint16(payload)
    const port = view.getUint16(payload + 2)
    const datagram = bytes.subarray(payload + UDP_HEADER, payload + length)
    if (packet.version === 4 && port === DHCP_SERVER_PORT && this.#isForServer()) return this.#dhcp(datagram)
    if (packet.version === 6 && port === DHCP6_SERVER_PORT) return this.#dhcp6(datagram)
    if (this.#link.isMulticast() || packet.isFor(Address4.limitedBroadcast) || packet.isFor(Address4.broadcast))
      return this.#link.drop()
    const guest = packet.copy(packet.addresses)
    const mac = bytes.slice(6, 12)
    const dns = packet.version === 4 ? Address4.dns : Address6.dns
    if (port === DNS_PORT && packet.isFor(dns)) {
      this.#dns.ask(datagram, (answer) => {
        this.#sendUdp(mac, dns, DNS_PORT, guest, sourcePort, answer)
        this.#link.card?.flush()
      })
      return
    }
    const refused = this.#udp.send(
      { guest, guestPort: sourcePort, mac },
      packet.copy(packet.destination),
      port,
      datagram,
    )
    if (refused) this.#link.unreachable(refused === 'denied' ? 'denied' : 'port')
    else this.#expireUdpLater()
  }

  #isForServer(): boolean {
    return this.#link.packet.isFor(Address4.limitedBroadcast) || this.#link.packet.isFor(Address4.gateway)
  }

  #dhcp6(message: Uint8Array): void {
    const answer = answerDhcp6(message)
    if (!answer) return this.#link.drop()
    const packet = this.#link.packet
    const mac = packet.bytes.slice(6, 12)
    this.#sendUdp(mac, Address6.router, DHCP6_SERVER_PORT, packet.copy(packet.addresses), DHCP6_CLIENT_PORT, answer)
  }

  #dhcp(message: Uint8Array): void {
    const answer = answerDhcp(message, this.mtu)
    if (!answer) return this.#link.drop()
    this.#sendUdp(
      this.#link.packet.bytes.slice(6, 12),
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
    if (header + bytes.length > this.mtu) return this.#link.drop()
    const writer = this.#link.writer
    writer.ip({ destination: mac, source: GATEWAY_MAC }, from, to, Protocol.udp)
    writer.bytes.set(bytes, writer.udpPayload)
    const end = writer.udpPayload + bytes.length
    writer.finishUdp(fromPort, toPort, end, this.#link.card!.offloads.checksum)
    this.#link.send(end)
  }

  sendDatagram(flow: UdpFlow, from: Uint8Array, fromPort: number, bytes: Uint8Array): void {
    this.#sendUdp(flow.mac, from, fromPort, flow.guest, flow.guestPort, bytes)
    this.#link.card?.flush()
  }

  portUnreachable({ guest, guestPort, remote, remotePort, mac }: UdpFlow): void {
    // What an error quotes is the packet's beginning: its headers are enough for the guest to find the socket.
    const writer = this.#link.writer
    writer.ip({ destination: mac, source: mac }, guest, remote, Protocol.udp)
    writer.finishUdp(guestPort, remotePort, writer.udpPayload, false)
    this.#link.sendUnreachable('port', mac, guest, writer.bytes.slice(ETHERNET, writer.udpPayload))
    this.#link.card?.flush()
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
          const to = family === 4 ? this.#link.guest4 : this.#link.guest6
          if (!to || !this.#link.card) return
          clients.delete(fromPort)
          clients.set(fromPort, { host: from, port: fromPort })
          if (clients.size > MOST_CLIENTS) clients.delete(clients.keys().next().value!)
          this.#sendUdp(
            this.#link.guestMac,
            family === 4 ? Address4.gateway : Address6.gateway,
            fromPort,
            to,
            guestPort,
            bytes,
          )
          this.#link.card.flush()
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

  // The cable

  flush(): void {
    this.#tcp.settle(false)
    this.#link.card?.flush()
  }

  ready(): void {
    this.#tcp.settle(true)
    this.#link.card?.flush()
  }

  carrier(on: boolean): void {
    this.#link.on = on
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
    let next = this.#tcp.expire(now)
    if (this.#udpExpiryNs <= now && this.#udp.size > 0) {
      this.#udp.expire()
      this.#udpExpiryNs = this.#udp.size > 0 ? now + EXPIRE_UDP_NS : 0
    }
    if (this.#udpExpiryNs > now) next = Math.min(next, this.#udpExpiryNs)
    if (next < Infinity) this.rearm(next)
    this.#link.card?.flush()
  }

  async close(): Promise<void> {
    this.#closed = true
    this.#tcp.close()
    if (this.#timer) this.#clock?.cancel(this.#timer)
    for (const listener of this.#listeners) await listener.close()
    this.#udp.close()
    this.#dns.close()
    this.#log?.debug('network closed')
  }
}
