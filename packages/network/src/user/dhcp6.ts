/** A DHCPv6 server with one address to assign. (RFC 8415) */

import { Address6, GATEWAY_MAC, sameBytes } from './addresses.ts'

export const DHCP6_SERVER_PORT = 547
export const DHCP6_CLIENT_PORT = 546
const HEADER = 4
const Type = {
  solicit: 1,
  advertise: 2,
  request: 3,
  confirm: 4,
  renew: 5,
  rebind: 6,
  reply: 7,
  release: 8,
  information: 11,
} as const
const Option = { client: 1, server: 2, addresses: 3, address: 5, rapidCommit: 14, dns: 23 } as const
/** By link-layer address, which is Ethernet. */
const OWN_ID = Uint8Array.of(0, 3, 0, 1, ...GATEWAY_MAC)
const LEASE_SECONDS = 86400
const LONGEST_ID = 130

const number = (value: number, bytes: 2 | 4): number[] =>
  [24, 16, 8, 0].slice(4 - bytes).map((shift) => (value >>> shift) & 0xff)
const option = (code: number, content: readonly number[] | Uint8Array): number[] => [
  ...number(code, 2),
  ...number(content.length, 2),
  ...content,
]

/** Of an option that is there twice, the first. Undefined: the options are cut off. */
function parseOptions(message: Uint8Array): Map<number, Uint8Array> | undefined {
  const view = new DataView(message.buffer, message.byteOffset, message.length)
  const found = new Map<number, Uint8Array>()
  for (let at = HEADER; at < message.length;) {
    if (at + 4 > message.length) return undefined
    const end = at + 4 + view.getUint16(at + 2)
    if (end > message.length) return undefined
    if (!found.has(view.getUint16(at))) found.set(view.getUint16(at), message.subarray(at + 4, end))
    at = end
  }
  return found
}

/** The answer to a message. Undefined: none. */
export function answerDhcp6(message: Uint8Array): Uint8Array | undefined {
  const options = message.length < HEADER ? undefined : parseOptions(message)
  if (!options) return undefined
  const type = message[0]!
  const client = options.get(Option.client)
  const server = options.get(Option.server)
  if (server && !sameBytes(server, OWN_ID)) return undefined
  // "Servers MUST discard any received [...] message that does not include a Client Identifier option"
  if ((!client && type !== Type.information) || (client && client.length > LONGEST_ID)) return undefined
  const rapid = type === Type.solicit && options.has(Option.rapidCommit)
  const given = [
    ...(client ? option(Option.client, client) : []),
    ...option(Option.server, OWN_ID),
    ...(rapid ? option(Option.rapidCommit, []) : []),
  ]
  const association = options.get(Option.addresses)
  const wantsAddress = association !== undefined && association.length >= 12 && type !== Type.information
  const lease = wantsAddress ? option(Option.addresses, leaseOf(association.subarray(0, 4))) : []
  const dns = option(Option.dns, Address6.dns)
  const reply = (answer: number, ...more: readonly number[][]): Uint8Array =>
    Uint8Array.of(answer, ...message.subarray(1, HEADER), ...given, ...more.flat())
  switch (type) {
    case Type.solicit:
      return reply(rapid ? Type.reply : Type.advertise, lease, dns)
    case Type.request:
    case Type.renew:
    case Type.rebind:
      return reply(Type.reply, lease, dns)
    case Type.information:
      return reply(Type.reply, dns)
    case Type.confirm:
    case Type.release:
      return reply(Type.reply)
    default:
      return undefined
  }
}

const leaseOf = (association: Uint8Array): number[] => [
  ...association,
  ...number(LEASE_SECONDS / 2, 4),
  ...number((LEASE_SECONDS * 4) / 5, 4),
  ...option(Option.address, [...Address6.guest, ...number(LEASE_SECONDS, 4), ...number(LEASE_SECONDS, 4)]),
]
