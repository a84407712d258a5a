/** Completes a frame: checksums, and TCP segmentation. For ends that accept complete frames only. @hot */

import { ETHERNET_HEADER, LONGEST_FRAME } from '@nonroot/contracts'
import type { FrameOffloads, FrameWork } from '@nonroot/contracts'
import { Flag } from '../tcp/facts.ts'
import { checksum, fold, sum } from '../wire/checksum.ts'
import { IPV4_HEADER, IPV6_HEADER, Protocol } from '../wire/facts.ts'

const TCP_HEADER = 20
const TCP_CHECKSUM = 16
/** Where IPv4 says which segment of a series this is. */
const IPV4_IDENTIFICATION = 4
/** More segments than the longest frame makes at any MSS in use; a guest that asks for segments of a byte gets none. */
const MOST_SEGMENTS = 1024

export const takesWork = (
  { checksum: sums, segment4, segment6 }: FrameOffloads,
  work: Readonly<FrameWork>,
): boolean => {
  if (work.checksumStart >= 0 && !sums) return false
  return work.segmentSize === 0 || (work.segmentIp === 4 ? segment4 : segment6)
}

export class FrameFinisher {
  readonly #bytes = new Uint8Array(LONGEST_FRAME)
  readonly #view = new DataView(this.#bytes.buffer)

  /** Calls `emit` with each complete frame, valid during the call only. A frame whose headers do not fit what is to be done gives none. */
  finish(frame: Uint8Array, work: Readonly<FrameWork>, emit: (frame: Uint8Array) => void): void {
    if (work.segmentSize > 0) this.#cut(frame, work, emit)
    else if (work.checksumStart >= 0) this.#sum(frame, work, emit)
    else emit(frame)
  }

  #sum(
    frame: Uint8Array,
    { checksumStart, checksumOffset }: Readonly<FrameWork>,
    emit: (frame: Uint8Array) => void,
  ): void {
    const at = checksumStart + checksumOffset
    if (checksumStart < ETHERNET_HEADER || at + 2 > frame.length) return
    const bytes = this.#bytes
    bytes.set(frame)
    const value = checksum(bytes, checksumStart, frame.length)
    // UDP's zero says that there is none; to TCP both zeros are the same.
    this.#view.setUint16(at, value === 0 ? 0xffff : value)
    emit(bytes.subarray(0, frame.length))
  }

  #cut(frame: Uint8Array, work: Readonly<FrameWork>, emit: (frame: Uint8Array) => void): void {
    const { checksumStart: tcp, segmentSize, segmentIp } = work
    const ip = ETHERNET_HEADER
    const least = ip + (segmentIp === 4 ? IPV4_HEADER : IPV6_HEADER)
    if (tcp < least || tcp + TCP_HEADER > frame.length || frame[ip]! >> 4 !== segmentIp) return
    if (segmentIp === 4 && (ip + (frame[ip]! & 15) * 4 !== tcp || frame[ip + 9] !== Protocol.tcp)) return
    const payload = tcp + (frame[tcp + 12]! >> 4) * 4
    if (payload < tcp + TCP_HEADER || payload > frame.length) return
    const length = frame.length - payload
    if (length > segmentSize * MOST_SEGMENTS) return
    const bytes = this.#bytes
    const view = this.#view
    bytes.set(frame.subarray(0, payload))
    const sequence = view.getUint32(tcp + 4)
    const identification = view.getUint16(ip + IPV4_IDENTIFICATION)
    const flags = bytes[tcp + 13]!
    for (let at = 0, count = 0; at < length || at === 0; at += segmentSize, count++) {
      const size = Math.min(segmentSize, length - at)
      const last = at + size >= length
      bytes.set(frame.subarray(payload + at, payload + at + size), payload)
      const end = payload + size
      view.setUint32(tcp + 4, (sequence + at) >>> 0)
      // What ends the data belongs to the last segment.
      bytes[tcp + 13] = last ? flags : flags & ~(Flag.fin | Flag.psh)
      if (segmentIp === 4) this.#header4(ip, tcp, end, identification + count)
      else view.setUint16(ip + 4, end - ip - IPV6_HEADER)
      this.#checksum(ip, tcp, end, segmentIp)
      emit(bytes.subarray(0, end))
    }
  }

  #header4(ip: number, tcp: number, end: number, identification: number): void {
    const view = this.#view
    view.setUint16(ip + 2, end - ip)
    view.setUint16(ip + IPV4_IDENTIFICATION, identification & 0xffff)
    view.setUint16(ip + 10, 0)
    view.setUint16(ip + 10, checksum(this.#bytes, ip, tcp))
  }

  #checksum(ip: number, tcp: number, end: number, version: 0 | 4 | 6): void {
    const [addresses, size] = version === 4 ? [ip + 12, 8] : [ip + 8, 32]
    const pseudo = sum(this.#bytes, addresses, addresses + size, Protocol.tcp + end - tcp)
    this.#view.setUint16(tcp + TCP_CHECKSUM, 0)
    this.#view.setUint16(tcp + TCP_CHECKSUM, ~fold(sum(this.#bytes, tcp, end, pseudo)) & 0xffff)
  }
}
