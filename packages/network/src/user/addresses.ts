/** Addresses of the user-mode network. */

export const Address4 = {
  network: Uint8Array.of(10, 0, 2, 0),
  mask: Uint8Array.of(255, 255, 255, 0),
  gateway: Uint8Array.of(10, 0, 2, 2),
  dns: Uint8Array.of(10, 0, 2, 3),
  guest: Uint8Array.of(10, 0, 2, 15),
  broadcast: Uint8Array.of(10, 0, 2, 255),
  /** Of the local link, whatever its network. (RFC 919) */
  limitedBroadcast: Uint8Array.of(255, 255, 255, 255),
  unspecified: new Uint8Array(4),
} as const

/** fd6e:6f6e:726f:6f74::/64, a unique local prefix: "nonroot" after its first byte. (RFC 4193) */
const PREFIX = [0xfd, 0x6e, 0x6f, 0x6e, 0x72, 0x6f, 0x6f, 0x74]
const local = (last: number): Uint8Array => Uint8Array.of(...PREFIX, 0, 0, 0, 0, 0, 0, 0, last)
export const PREFIX_LENGTH = 64

export const Address6 = {
  network: local(0),
  gateway: local(2),
  dns: local(3),
  /** By DHCPv6; by itself it has another as well. */
  guest: local(0x15),
  /** fe80::2: where router advertisements come from. */
  router: Uint8Array.of(0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2),
  /** ff02::1 */
  allNodes: Uint8Array.of(0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1),
  unspecified: new Uint8Array(16),
} as const

export const GATEWAY_MAC = Uint8Array.of(0x52, 0x55, 0x0a, 0, 2, 2)
export const ALL_NODES_MAC = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1)

/** Is `address` in the first `bits` of `network`? */
export function inNetwork(address: Uint8Array, network: Uint8Array, bits: number): boolean {
  for (let index = 0; index < bits / 8; index++) if (address[index] !== network[index]) return false
  return address.length === network.length
}

export const sameBytes = (left: Uint8Array, right: Uint8Array): boolean => {
  for (let index = 0; index < left.length; index++) if (left[index] !== right[index]) return false
  return left.length === right.length
}
