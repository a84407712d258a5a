/** A received frame: offsets of its parts. One object serves all frames. Independent of protocols above IP. @hot */

import { ETHERNET, EtherType, IPV4_HEADER, IPV6_HEADER, Protocol } from './facts.ts'
import { fold, sum } from './checksum.ts'

const NOTHING = new Uint8Array(0)
/** IPv6 extension headers that are gone over: hop-by-hop, routing, destination options. More than these is no packet of a driver's. */
const EXTENSIONS: readonly number[] = [0, 43, 60]
const MOST_EXTENSIONS = 4

export class Packet {
  bytes: Uint8Array = NOTHING
  view: DataView = new DataView(NOTHING.buffer)
  etherType = 0
  /** 4, 6, or 0: neither. */
  version: 0 | 4 | 6 = 0
  protocol = 0
  hopLimit = 0
  /** Where the addresses are, source first, and how long one is. */
  addresses = 0
  addressLength = 4
  /** Where the header is that the addresses belong to. */
  header = 0
  /** What IP carries: from here to there. Behind it may be padding. */
  payload = 0
  end = 0
  /** It is a part of a packet: offset in bytes, whether more follows, and what names the packet. */
  fragment = false
  fragmentOffset = 0
  moreFragments = false
  identification = 0

  get destination(): number {
    return this.addresses + this.addressLength
  }

  /** False: no frame that makes sense. */
  parse(bytes: Uint8Array): boolean {
    if (bytes.length < ETHERNET) return false
    if (
      bytes.buffer !== this.view.buffer ||
      bytes.byteOffset !== this.view.byteOffset ||
      bytes.length > this.view.byteLength
    )
      this.view = new DataView(bytes.buffer, bytes.byteOffset)
    this.bytes = bytes
    this.etherType = this.view.getUint16(12)
    this.version = 0
    this.fragment = false
    this.payload = ETHERNET
    this.end = bytes.length
    if (this.etherType === EtherType.ipv4) return this.#ipv4()
    if (this.etherType === EtherType.ipv6) return this.#ipv6()
    return true
  }

  #ipv4(): boolean {
    const { bytes, view } = this
    const at = ETHERNET
    if (bytes.length < at + IPV4_HEADER) return false
    const header = (bytes[at]! & 15) * 4
    const length = view.getUint16(at + 2)
    if (bytes[at]! >> 4 !== 4 || header < IPV4_HEADER || length < header || at + length > bytes.length) return false
    if (fold(sum(bytes, at, at + header)) !== 0xffff) return false
    const fragment = view.getUint16(at + 6)
    this.version = 4
    this.header = at
    this.protocol = bytes[at + 9]!
    this.hopLimit = bytes[at + 8]!
    this.addresses = at + 12
    this.addressLength = 4
    this.payload = at + header
    this.end = at + length
    this.#setFragment((fragment & 0x1fff) * 8, (fragment & 0x2000) !== 0, view.getUint16(at + 4))
    return true
  }

  #ipv6(): boolean {
    const { bytes, view } = this
    const at = ETHERNET
    if (bytes.length < at + IPV6_HEADER) return false
    const end = at + IPV6_HEADER + view.getUint16(at + 4)
    if (bytes[at]! >> 4 !== 6 || end > bytes.length) return false
    this.version = 6
    this.header = at
    this.hopLimit = bytes[at + 7]!
    this.addresses = at + 8
    this.addressLength = 16
    this.end = end
    return this.#extensions(bytes[at + 6]!, at + IPV6_HEADER)
  }

  #extensions(protocol: number, at: number): boolean {
    const { bytes, view, end } = this
    for (let count = 0; EXTENSIONS.includes(protocol); count++) {
      if (count === MOST_EXTENSIONS || at + 8 > end) return false
      protocol = bytes[at]!
      at += 8 * (bytes[at + 1]! + 1)
    }
    if (protocol === Protocol.fragment) {
      if (at + 8 > end) return false
      const offset = view.getUint16(at + 2)
      this.#setFragment(offset & 0xfff8, (offset & 1) !== 0, view.getUint32(at + 4))
      protocol = bytes[at]!
      at += 8
    }
    this.protocol = protocol
    this.payload = at
    return at <= end
  }

  #setFragment(offset: number, more: boolean, identification: number): void {
    this.fragment = offset > 0 || more
    this.fragmentOffset = offset
    this.moreFragments = more
    this.identification = identification
  }

  is(at: number, address: Uint8Array): boolean {
    if (address.length !== this.addressLength) return false
    for (let index = 0; index < address.length; index++) if (this.bytes[at + index] !== address[index]) return false
    return true
  }

  isFor(address: Uint8Array): boolean {
    return this.is(this.destination, address)
  }

  copy(at: number): Uint8Array {
    return this.bytes.slice(at, at + this.addressLength)
  }
}
