/** Opens the network that a configuration names. */

import { NonrootError } from '@nonroot/contracts'
import type { HostNetwork, NetworkBackend, NetworkRequest, StreamAddress } from '@nonroot/contracts'
import { withCapture } from './cable/capture.ts'
import { withImpairment } from './cable/impair.ts'
import { Hub } from './switch/hub.ts'
import { openPasst } from './switch/passt.ts'
import { StreamNetwork } from './switch/stream-network.ts'
import { UserNetwork } from './user/user-network.ts'

const LEAST_MTU = 1280 // IPv6's
const MOST_MTU = 65521
/** Of what only the user-mode network does. */
const USER_ONLY = ['forward', 'loopback', 'allow', 'deny'] as const

type Card = Pick<NetworkBackend, 'macAddress' | 'mtu'>

interface NetworkKind {
  readonly matches: RegExp
  /** As a configuration writes it. */
  readonly written: string
  open(rest: string, request: NetworkRequest, host: HostNetwork, card: Card): Promise<NetworkBackend>
}

const KINDS: readonly NetworkKind[] = [
  {
    matches: /^user()$/,
    written: 'user',
    async open(_rest, request, host, { macAddress }) {
      const user = new UserNetwork(request, { host, macAddress })
      await user.listen()
      return user
    },
  },
  {
    matches: /^passt()$/,
    written: 'passt',
    open: (_rest, { forward }, host, card) => openPasst(host, card, forward ?? []),
  },
  { matches: /^none()$/, written: 'none', open: async (_rest, _request, _host, card) => new StreamNetwork(card) },
  {
    matches: /^hub:([\w.-]{1,64})$/,
    written: 'hub:NAME',
    open: (name, _request, host, card) => new Hub(name, host, card).join(),
  },
  {
    matches: /^socket:listen:(.+)$/,
    written: 'socket:listen:PATH',
    async open(rest, _request, host, card) {
      const network = new StreamNetwork(card)
      network.listens(await host.listen(streamAddress(rest), ({ stream }) => network.attach(stream)))
      return network
    },
  },
  {
    matches: /^socket:(.+)$/,
    written: 'socket:PATH or socket:HOST:PORT',
    open: (rest, _request, host, card) =>
      new StreamNetwork(card).dial(() => host.connect(streamAddress(rest)), `socket:${rest}`),
  },
]

/** Opens a network over the host's own. Rejects with what is wrong with the request, or with the host. */
export async function openNetwork(request: NetworkRequest, host: HostNetwork): Promise<NetworkBackend> {
  const { network, mac, mtu = 1500, capture, impair } = request
  if (!Number.isInteger(mtu) || mtu < LEAST_MTU || mtu > MOST_MTU)
    throw wrong('mtu', mtu, `an MTU of ${mtu} is not in ${LEAST_MTU} to ${MOST_MTU}`)
  const card = { macAddress: mac === undefined ? ownMac(host) : parseMac(mac), mtu }
  const kind = KINDS.find(({ matches }) => matches.test(network))
  if (!kind)
    throw wrong('network', network, `there is no network "${network}"`, KINDS.map(({ written }) => written).join(', '))
  const foreign = USER_ONLY.find(
    (key) => request[key] !== undefined && !(key === 'forward' && kind.written === 'passt'),
  )
  if (foreign && kind.written !== 'user')
    throw wrong(
      foreign,
      request[foreign],
      `${foreign} is for the user-mode network, not for ${network}`,
      'network: user',
    )
  // The file first: what cannot be written should not have forwarded ports.
  const file = capture === undefined ? undefined : await host.openCapture(capture)
  let opened = await kind.open(kind.matches.exec(network)![1]!, request, host, card)
  if (impair) opened = withImpairment(opened, impair)
  return file ? withCapture(opened, file) : opened
}

/** `127.0.0.1:4000`, `[::1]:4000`; anything else is a path. */
function streamAddress(text: string): StreamAddress {
  const found = /^(\[[\da-f:.]+\]|[\w.-]+):(\d{1,5})$/i.exec(text)
  return found ? { host: found[1]!.replace(/^\[|\]$/g, ''), port: Number(found[2]) } : { path: text }
}

/** Of QEMU's and KVM's prefix, and random. */
function ownMac(host: HostNetwork): Uint8Array {
  const mac = new Uint8Array(6)
  host.random(mac)
  mac.set([0x52, 0x54, 0x00])
  return mac
}

function parseMac(text: string): Uint8Array {
  const bytes = text.split(/[:-]/).map((part) => (/^[\da-f]{1,2}$/i.test(part) ? parseInt(part, 16) : NaN))
  if (bytes.length !== 6 || bytes.some(Number.isNaN))
    throw wrong('mac', text, `"${text}" is no MAC address`, '52:54:00:12:34:56')
  if (bytes[0]! & 1) throw wrong('mac', text, `${text} is a multicast address, which no card has`, 'an even first byte')
  return Uint8Array.from(bytes)
}

const wrong = (thing: string, value: unknown, message: string, remedy?: string): NonrootError =>
  new NonrootError({
    code: 'host.backend',
    message,
    thing,
    value,
    ...(remedy === undefined ? {} : { remedy: `as in ${remedy}` }),
  })
