/** ARP, and IPv6's neighbour discovery with router advertisements: who has which address on the user-mode network. (RFC 826, RFC 4861, RFC 8106) */

import { EtherType, ETHERNET, MAC_LENGTH, NEIGHBOUR_HOP_LIMIT, Protocol } from '../wire/facts.ts'
import type { FrameWriter } from '../wire/frame-writer.ts'
import type { Packet } from '../wire/packet.ts'
import { Address4, Address6, ALL_NODES_MAC, GATEWAY_MAC, PREFIX_LENGTH, sameBytes } from './addresses.ts'

const ARP_LENGTH = 28
const Arp = { operation: 6, senderMac: 8, senderIp: 14, targetMac: 18, targetIp: 24 } as const
const ARP_ETHERNET_IPV4 = 0x0001_0800
const REQUEST = 1
const REPLY = 2

export const Icmp6 = {
  unreachable: 1,
  tooBig: 2,
  echo: 128,
  echoReply: 129,
  routerSolicit: 133,
  routerAdvert: 134,
  solicit: 135,
  advert: 136,
} as const
const NdOption = { source: 1, target: 2, prefix: 3, mtu: 5, dns: 25 } as const
const ROUTER_SECONDS = 1800
/** Solicited, and ours overrides what the guest believed. */
const ROUTER_SOLICITED_OVERRIDE = 0xe000_0000
/** "Managed address configuration" and "other configuration": DHCPv6 has an address and name servers to give. */
const MANAGED_AND_OTHER = 0xc0
const ON_LINK_AUTONOMOUS = 0xc0

const OURS4 = [Address4.gateway, Address4.dns] as const
const OURS6 = [Address6.gateway, Address6.dns, Address6.router] as const

/** Length of the reply in `writer`, or 0: there is none. `onSender` hears who asked. */
export function answerArp(
  packet: Packet,
  writer: FrameWriter,
  onSender: (ip: Uint8Array, mac: Uint8Array) => void,
): number {
  const { bytes, view } = packet
  const at = ETHERNET
  if (bytes.length < at + ARP_LENGTH || view.getUint32(at) !== ARP_ETHERNET_IPV4 || view.getUint16(at + 4) !== 0x0604)
    return 0
  const operation = view.getUint16(at + Arp.operation)
  const mac = bytes.slice(at + Arp.senderMac, at + Arp.senderMac + MAC_LENGTH)
  const sender = bytes.slice(at + Arp.senderIp, at + Arp.senderIp + 4)
  onSender(sender, mac)
  const target = bytes.subarray(at + Arp.targetIp, at + Arp.targetIp + 4)
  const ours = OURS4.find((address) => sameBytes(address, target))
  if (operation !== REQUEST || !ours) return 0
  return writeArp(writer, REPLY, { ip: ours, mac: GATEWAY_MAC }, { ip: sender, mac })
}

interface Neighbour {
  readonly ip: Uint8Array
  readonly mac: Uint8Array
}

function writeArp(writer: FrameWriter, operation: number, from: Neighbour, to: Neighbour): number {
  writer.ethernet(to.mac, from.mac, EtherType.arp)
  const { bytes, view } = writer
  const at = ETHERNET
  view.setUint32(at, ARP_ETHERNET_IPV4)
  view.setUint16(at + 4, 0x0604)
  view.setUint16(at + Arp.operation, operation)
  bytes.set(from.mac, at + Arp.senderMac)
  bytes.set(from.ip, at + Arp.senderIp)
  bytes.set(to.mac, at + Arp.targetMac)
  bytes.set(to.ip, at + Arp.targetIp)
  return at + ARP_LENGTH
}

/** A neighbour solicitation's answer, or 0. */
export function answerSolicitation(packet: Packet, writer: FrameWriter): number {
  const { bytes, payload, end } = packet
  if (packet.hopLimit !== NEIGHBOUR_HOP_LIMIT || end - payload < 24) return 0
  const target = bytes.subarray(payload + 8, payload + 24)
  const ours = OURS6.find((address) => sameBytes(address, target))
  if (!ours) return 0
  const source = packet.copy(packet.addresses)
  // A probe whether an address is free has no sender address. It is answered if the address is ours.
  const unspecified = sameBytes(source, Address6.unspecified)
  const mac = unspecified ? ALL_NODES_MAC : bytes.slice(MAC_LENGTH, 2 * MAC_LENGTH)
  writer.ip(
    { destination: mac, source: GATEWAY_MAC },
    ours,
    unspecified ? Address6.allNodes : source,
    Protocol.icmpv6,
    NEIGHBOUR_HOP_LIMIT,
  )
  const at = writer.payload
  const { view } = writer
  view.setUint32(at, Icmp6.advert << 24)
  view.setUint32(at + 4, unspecified ? 0xa000_0000 : ROUTER_SOLICITED_OVERRIDE)
  writer.bytes.set(ours, at + 8)
  writer.bytes[at + 24] = NdOption.target
  writer.bytes[at + 25] = 1
  writer.bytes.set(GATEWAY_MAC, at + 26)
  writer.finishTransport(at + 32, 2, false)
  return at + 32
}

/** To all nodes: prefix, router, name server, MTU. */
export function writeRouterAdvertisement(writer: FrameWriter, mtu: number): number {
  writer.ip(
    { destination: ALL_NODES_MAC, source: GATEWAY_MAC },
    Address6.router,
    Address6.allNodes,
    Protocol.icmpv6,
    NEIGHBOUR_HOP_LIMIT,
  )
  const { bytes, view } = writer
  let at = writer.payload
  view.setUint32(at, Icmp6.routerAdvert << 24)
  bytes[at + 4] = 64
  bytes[at + 5] = MANAGED_AND_OTHER
  view.setUint16(at + 6, ROUTER_SECONDS)
  view.setUint32(at + 8, 0)
  view.setUint32(at + 12, 0)
  at += 16
  view.setUint16(at, (NdOption.source << 8) | 1)
  bytes.set(GATEWAY_MAC, at + 2)
  at += 8
  view.setUint16(at, (NdOption.mtu << 8) | 1)
  view.setUint16(at + 2, 0)
  view.setUint32(at + 4, mtu)
  at += 8
  view.setUint16(at, (NdOption.prefix << 8) | 4)
  bytes[at + 2] = PREFIX_LENGTH
  bytes[at + 3] = ON_LINK_AUTONOMOUS
  view.setUint32(at + 4, 86400)
  view.setUint32(at + 8, 14400)
  view.setUint32(at + 12, 0)
  bytes.set(Address6.network, at + 16)
  at += 32
  view.setUint16(at, (NdOption.dns << 8) | 3)
  view.setUint16(at + 2, 0)
  view.setUint32(at + 4, ROUTER_SECONDS)
  bytes.set(Address6.dns, at + 8)
  at += 24
  writer.finishTransport(at, 2, false)
  return at
}
