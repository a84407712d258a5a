/** A DHCP server with one address to assign. (RFC 2131, RFC 2132) */

import { Address4, sameBytes } from './addresses.ts'

export const DHCP_SERVER_PORT = 67
export const DHCP_CLIENT_PORT = 68
const MAGIC = 0x6382_5363
const Offset = {
  op: 0,
  htype: 1,
  hlen: 2,
  xid: 4,
  flags: 10,
  ciaddr: 12,
  yiaddr: 16,
  siaddr: 20,
  chaddr: 28,
  magic: 236,
} as const
const OPTIONS = 240
/** What BOOTP clients take at least. */
const LEAST_LENGTH = 300
const Option = {
  pad: 0,
  mask: 1,
  router: 3,
  dns: 6,
  mtu: 26,
  broadcast: 28,
  requested: 50,
  lease: 51,
  type: 53,
  server: 54,
  renewal: 58,
  rebinding: 59,
  rapidCommit: 80,
  end: 255,
} as const
const Type = { discover: 1, offer: 2, request: 3, decline: 4, ack: 5, nak: 6, release: 7, inform: 8 } as const
const LEASE_SECONDS = 86400

const seconds = (value: number): number[] => [24, 16, 8, 0].map((shift) => (value >>> shift) & 0xff)

/** Options of a message; of one that is there twice, the first. */
function parseOptions(message: Uint8Array): Map<number, Uint8Array> {
  const found = new Map<number, Uint8Array>()
  for (let at = OPTIONS; at < message.length;) {
    const code = message[at]!
    if (code === Option.end) break
    if (code === Option.pad) {
      at++
      continue
    }
    const length = message[at + 1]
    if (length === undefined || at + 2 + length > message.length) break
    if (!found.has(code)) found.set(code, message.subarray(at + 2, at + 2 + length))
    at += 2 + length
  }
  return found
}

/** The answer to a message. Undefined: none. */
export function answerDhcp(message: Uint8Array, mtu: number): Uint8Array | undefined {
  if (message.length < OPTIONS || message[Offset.op] !== 1 || message[Offset.htype] !== 1 || message[Offset.hlen] !== 6)
    return undefined
  const view = new DataView(message.buffer, message.byteOffset, message.length)
  if (view.getUint32(Offset.magic) !== MAGIC) return undefined
  const options = parseOptions(message)
  const type = options.get(Option.type)?.[0]
  const server = options.get(Option.server)
  if (server && !sameBytes(server, Address4.gateway)) return undefined
  switch (type) {
    case Type.discover:
      return reply(
        message,
        options.has(Option.rapidCommit) ? Type.ack : Type.offer,
        mtu,
        options.has(Option.rapidCommit),
      )
    case Type.request: {
      const wanted = options.get(Option.requested) ?? message.subarray(Offset.ciaddr, Offset.ciaddr + 4)
      return reply(message, sameBytes(wanted, Address4.guest) ? Type.ack : Type.nak, mtu)
    }
    case Type.inform:
      return reply(message, Type.ack, mtu)
    default:
      return undefined
  }
}

function reply(message: Uint8Array, type: number, mtu: number, rapid = false): Uint8Array {
  const inform = parseOptions(message).get(Option.type)?.[0] === Type.inform
  const lease = inform
    ? []
    : [
        ...[Option.lease, 4, ...seconds(LEASE_SECONDS)],
        ...[Option.renewal, 4, ...seconds(LEASE_SECONDS / 2)],
        ...[Option.rebinding, 4, ...seconds((LEASE_SECONDS * 7) / 8)],
      ]
  const given = [
    ...lease,
    ...[Option.mask, 4, ...Address4.mask],
    ...[Option.broadcast, 4, ...Address4.broadcast],
    ...[Option.router, 4, ...Address4.gateway],
    ...[Option.dns, 4, ...Address4.dns],
    ...[Option.mtu, 2, mtu >> 8, mtu & 0xff],
  ]
  const options = [
    ...[Option.type, 1, type],
    ...[Option.server, 4, ...Address4.gateway],
    ...(type === Type.nak ? [] : given),
    ...(rapid ? [Option.rapidCommit, 0] : []),
    Option.end,
  ]
  const answer = new Uint8Array(Math.max(LEAST_LENGTH, OPTIONS + options.length))
  const view = new DataView(answer.buffer)
  answer[Offset.op] = 2
  answer[Offset.htype] = 1
  answer[Offset.hlen] = 6
  answer.set(message.subarray(Offset.xid, Offset.xid + 4), Offset.xid)
  answer.set(message.subarray(Offset.flags, Offset.flags + 2), Offset.flags)
  if (type === Type.ack) answer.set(message.subarray(Offset.ciaddr, Offset.ciaddr + 4), Offset.ciaddr)
  if (type !== Type.nak && !inform) answer.set(Address4.guest, Offset.yiaddr)
  answer.set(Address4.gateway, Offset.siaddr)
  answer.set(message.subarray(Offset.chaddr, Offset.chaddr + 16), Offset.chaddr)
  view.setUint32(Offset.magic, MAGIC)
  answer.set(options, OPTIONS)
  return answer
}

/** Where an answer goes: to the client's address if it has one, else to everyone. (RFC 2131, 4.1) */
export function dhcpDestination(message: Uint8Array): Uint8Array {
  const client = message.subarray(Offset.ciaddr, Offset.ciaddr + 4)
  return sameBytes(client, Address4.unspecified) ? Address4.limitedBroadcast : client.slice()
}
