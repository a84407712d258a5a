/** Networks by what a configuration says of them. */

import { NonrootError } from '@nonroot/contracts'
import type { HostNetwork, NetworkBackend, NetworkRequest } from '@nonroot/contracts'
import { UserNetwork } from './user/user-network.ts'

const LEAST_MTU = 1280 // IPv6's
const MOST_MTU = 65521

/** Opens a network over the host's own. Rejects with what is wrong with the request, or with the host. */
export async function openNetwork(request: NetworkRequest, host: HostNetwork): Promise<NetworkBackend> {
  const { network, mac, mtu = 1500 } = request
  if (!Number.isInteger(mtu) || mtu < LEAST_MTU || mtu > MOST_MTU)
    throw wrong('mtu', mtu, `an MTU of ${mtu} is not in ${LEAST_MTU} to ${MOST_MTU}`)
  const macAddress = mac === undefined ? ownMac(host) : parseMac(mac)
  if (network === 'user') {
    const user = new UserNetwork(request, { host, macAddress })
    await user.listen()
    return user
  }
  throw wrong('network', network, `there is no network "${network}"`, 'user')
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
