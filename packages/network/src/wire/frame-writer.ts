/** Writes frames, in one buffer that serves all of them. Headers only; independent of who sends them. @hot */

import { createFrameWork, LONGEST_FRAME } from '@nonroot/contracts'
import { checksum, fold, pseudoHeader } from './checksum.ts'
import { ETHERNET, EtherType, HOP_LIMIT, IPV4_HEADER, IPV6_HEADER, Protocol, UDP_HEADER } from './facts.ts'

/** Bytes of the Don't Fragment bit. */
const DONT_FRAGMENT = 0x4000

export class FrameWriter {
  readonly bytes = new Uint8Array(LONGEST_FRAME)
  readonly view = new DataView(this.bytes.buffer)
  readonly work = createFrameWork()
  /** Where what is above IP begins. */
  payload = 0
  #addresses = 0
  #addressLength = 4
  #protocol = 0

  ethernet(destination: Uint8Array, source: Uint8Array, type: number): void {
    this.bytes.set(destination, 0)
    this.bytes.set(source, 6)
    this.view.setUint16(12, type)
    this.payload = ETHERNET
    this.work.checksumStart = -1
    this.work.segmentSize = this.work.segmentIp = 0
  }

  /** Ethernet and IP by the addresses' length. The packet's length is set by `finish`. */
  ip(
    mac: { readonly destination: Uint8Array; readonly source: Uint8Array },
    source: Uint8Array,
    destination: Uint8Array,
    protocol: number,
    hopLimit = HOP_LIMIT,
  ): void {
    const { bytes, view } = this
    this.#protocol = protocol
    this.#addressLength = source.length
    const at = ETHERNET
    if (source.length === 4) {
      this.ethernet(mac.destination, mac.source, EtherType.ipv4)
      view.setUint16(at, 0x4500)
      view.setUint32(at + 4, DONT_FRAGMENT)
      bytes[at + 8] = hopLimit
      bytes[at + 9] = protocol
      view.setUint16(at + 10, 0)
      this.#addresses = at + 12
      this.payload = at + IPV4_HEADER
    } else {
      this.ethernet(mac.destination, mac.source, EtherType.ipv6)
      view.setUint32(at, 0x6000_0000)
      bytes[at + 6] = protocol
      bytes[at + 7] = hopLimit
      this.#addresses = at + 8
      this.payload = at + IPV6_HEADER
    }
    bytes.set(source, this.#addresses)
    bytes.set(destination, this.#addresses + source.length)
  }

  /** IP payload ends at `end`: lengths and the header's checksum. */
  finish(end: number): void {
    const { view, bytes } = this
    if (this.#addressLength === 4) {
      view.setUint16(ETHERNET + 2, end - ETHERNET)
      view.setUint16(ETHERNET + 10, checksum(bytes, ETHERNET, ETHERNET + IPV4_HEADER))
    } else view.setUint16(ETHERNET + 4, end - this.payload)
  }

  /** The checksum of what is above IP, `offset` bytes into it: made here, or left to the card. */
  finishTransport(end: number, offset: number, offload: boolean): void {
    this.finish(end)
    const { bytes, view, payload, work } = this
    const pseudo = pseudoHeader(bytes, this.#addresses, 2 * this.#addressLength, this.#protocol, end - payload)
    if (offload) {
      view.setUint16(payload + offset, fold(pseudo))
      work.checksumStart = payload
      work.checksumOffset = offset
      return
    }
    view.setUint16(payload + offset, 0)
    const value = checksum(bytes, payload, end, pseudo)
    // RFC 768: a sum of zero is sent as all ones, since zero says that there is none.
    view.setUint16(payload + offset, value === 0 && this.#protocol === Protocol.udp ? 0xffff : value)
  }

  /** UDP's header; its payload is there already, up to `end`. */
  finishUdp(sourcePort: number, destinationPort: number, end: number, offload: boolean): void {
    const { view, payload } = this
    view.setUint16(payload, sourcePort)
    view.setUint16(payload + 2, destinationPort)
    view.setUint16(payload + 4, end - payload)
    this.finishTransport(end, 6, offload)
  }

  get udpPayload(): number {
    return this.payload + UDP_HEADER
  }
}
