/** Which addresses the guest may connect to, and which host addresses they stand for. Independent of protocols. */

import { NonrootError } from '@nonroot/contracts'
import type { NetworkRequest } from '@nonroot/contracts'
import ipaddr from 'ipaddr.js'
import { Address4, Address6, inNetwork, PREFIX_LENGTH, sameBytes } from './addresses.ts'

type Address = ReturnType<typeof ipaddr.parse>

interface Rule {
  readonly address: Address
  readonly bits: number
  /** Ports, inclusive. */
  readonly first: number
  readonly last: number
}

/** `to`: connect there. `refused`: no one listens. `denied`: the policy says no. */
export type Verdict =
  { readonly to: { readonly host: string; readonly port: number } } | { readonly refused: 'refused' | 'denied' }

const REFUSED: Verdict = { refused: 'refused' }
const DENIED: Verdict = { refused: 'denied' }
/** Ranges by ipaddr.js's names: the host itself, everybody, and what needs an interface. An IPv4 address in an IPv6 one is judged as what it is. */
const NOWHERE: ReadonlySet<string> = new Set([
  'unspecified',
  'loopback',
  'broadcast',
  'multicast',
  'linkLocal',
  'ipv4Mapped',
  'rfc6145',
])
/** fe80::/10 needs an interface; 169.254.0.0/16 does not. */
const reachesNowhere = (address: Address): boolean => {
  const range = address.range()
  return NOWHERE.has(range) && !(range === 'linkLocal' && address.kind() === 'ipv4')
}

const DNS_PORT = 53

export class Policy {
  readonly #allow: readonly Rule[] | undefined
  readonly #deny: readonly Rule[]
  readonly #loopback: 'open' | ReadonlySet<number>
  readonly #nameServer: () => string | undefined

  constructor(
    { allow, deny = [], loopback = [] }: Pick<NetworkRequest, 'allow' | 'deny' | 'loopback'>,
    nameServer: () => string | undefined,
  ) {
    this.#allow = allow?.map((text) => parseRule(text, 'allow'))
    this.#deny = deny.map((text) => parseRule(text, 'deny'))
    this.#loopback = loopback === 'open' ? loopback : new Set(loopback)
    this.#nameServer = nameServer
  }

  /** Where the guest's packets to an address, 4 or 16 bytes, and a port go. */
  decide(bytes: Uint8Array, port: number): Verdict {
    if (port === 0) return DENIED
    const four = bytes.length === 4
    if (sameBytes(bytes, four ? Address4.gateway : Address6.gateway)) {
      if (this.#loopback !== 'open' && !this.#loopback.has(port)) return REFUSED
      return { to: { host: four ? '127.0.0.1' : '::1', port } }
    }
    if (sameBytes(bytes, four ? Address4.dns : Address6.dns)) {
      const server = port === DNS_PORT ? this.#nameServer() : undefined
      return server === undefined ? REFUSED : { to: { host: server, port } }
    }
    if (four ? inNetwork(bytes, Address4.network, 24) : inNetwork(bytes, Address6.network, PREFIX_LENGTH)) return DENIED
    const address = ipaddr.fromByteArray([...bytes])
    if (reachesNowhere(address) || (four && bytes[0] === 0)) return DENIED
    if (this.#deny.some((rule) => matches(rule, address, port))) return DENIED
    if (this.#allow && !this.#allow.some((rule) => matches(rule, address, port))) return DENIED
    return { to: { host: address.toString(), port } }
  }
}

const matches = ({ address, bits, first, last }: Rule, other: Address, port: number): boolean =>
  port >= first && port <= last && address.kind() === other.kind() && other.match(address as never, bits)

/** `192.0.2.1`, `192.0.2.0/24`, `192.0.2.1:443`, `192.0.2.0/24:8000-8999`, `[2001:db8::1]:443`, `[2001:db8::]/32`, `2001:db8::/32`. */
function parseRule(text: string, key: string): Rule {
  const found =
    /^(?:\[(?<six>[^\]]+)\]|(?<four>[\d.]+)|(?<plain>[\da-f:.]+?))(?:\/(?<bits>\d+))?(?::(?<first>\d+)(?:-(?<last>\d+))?)?$/i.exec(
      text,
    )?.groups
  const bare = ipaddr.isValid(text) ? text : undefined
  const host = bare ?? found?.['six'] ?? found?.['four'] ?? found?.['plain']
  if (host === undefined || !ipaddr.isValid(host)) throw wrongRule(text, key)
  const address = ipaddr.parse(host)
  const groups = bare === undefined ? found : undefined
  const most = address.kind() === 'ipv4' ? 32 : 128
  const bits = Number(groups?.['bits'] ?? most)
  const first = Number(groups?.['first'] ?? 0)
  const last = Number(groups?.['last'] ?? groups?.['first'] ?? 65535)
  if (bits > most || first > last || last > 65535) throw wrongRule(text, key)
  return { address, bits, first, last }
}

const wrongRule = (text: string, key: string): NonrootError =>
  new NonrootError({
    code: 'host.backend',
    message: `"${text}" is no address, network or port`,
    thing: key,
    value: text,
    remedy: 'as in 192.0.2.1, 192.0.2.0/24, 192.0.2.1:443, 192.0.2.0/24:8000-8999 or [2001:db8::]/32',
  })
