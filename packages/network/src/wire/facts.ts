/** Constants of Ethernet, IP and the protocols above it. */

export const EtherType = { ipv4: 0x0800, arp: 0x0806, ipv6: 0x86dd } as const
export const Protocol = { icmp: 1, tcp: 6, udp: 17, icmpv6: 58, fragment: 44 } as const
export const MAC_LENGTH = 6
export const ETHERNET = 14
export const IPV4_HEADER = 20
export const IPV6_HEADER = 40
export const UDP_HEADER = 8
export const ICMP_HEADER = 8
/** Hops that what we send may take: there is one. */
export const HOP_LIMIT = 64
/** RFC 4861: what is not from this link has less. */
export const NEIGHBOUR_HOP_LIMIT = 255
export const BROADCAST = Uint8Array.of(0xff, 0xff, 0xff, 0xff, 0xff, 0xff)
