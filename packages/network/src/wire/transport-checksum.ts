/** Verifies checksums of packets. @hot */

import { fold, pseudoHeader, sum } from './checksum.ts'
import { Protocol, UDP_HEADER } from './facts.ts'
import type { Packet } from './packet.ts'

/** Whether the checksum of what is above IP is right, where there is one. */
export function isChecksumRight({
  protocol,
  bytes,
  view,
  payload,
  end,
  addresses,
  addressLength,
  version,
}: Packet): boolean {
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
