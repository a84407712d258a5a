/** Reads and writes one VM's memory: values, bytes and leases. Where its pages have their frames is in guest-frames.ts. @hot */

import { FRAME_MASK, FRAME_SIZE, hpa } from '@nonroot/contracts'
import type { GuestMemory, MemoryLease, MemoryPiece } from '@nonroot/contracts'
import type { Slot } from './frame-index.ts'
import { NO_FRAME, type GuestMemoryOptions } from './frame-table.ts'
import { DemandGuestFrames } from './guest-frames.ts'

export type { GuestMemoryOptions } from './frame-table.ts'

/**
 * Accesses cannot wait: if the host has no frame for one, or a parked page cannot be filled, it fails as if there were no RAM, and `onFailure` ends
 * the VM.
 */
export class DemandGuestMemory extends DemandGuestFrames implements GuestMemory {
  readonly #bytes: Uint8Array
  readonly #view: DataView

  constructor(options: GuestMemoryOptions) {
    super(options)
    this.#bytes = options.hostMemory.bytes
    this.#view = options.hostMemory.view
  }

  isRam(address: number, length: number): boolean {
    return this.index.find(address, length)?.ram === true
  }

  // Values: usually in one frame; accesses that cross frames go byte by byte.

  readU8(address: number): number | undefined {
    const at = this.#readAt(address, 1)
    return at < 0 ? undefined : this.#bytes[at]
  }

  readU16(address: number): number | undefined {
    if ((address & FRAME_MASK) > FRAME_SIZE - 2)
      return this.#spans(address, 2) ? this.readU8(address)! | (this.readU8(address + 1)! << 8) : undefined
    const at = this.#readAt(address, 2)
    return at < 0 ? undefined : this.#view.getUint16(at, true)
  }

  readU32(address: number): number | undefined {
    if ((address & FRAME_MASK) > FRAME_SIZE - 4)
      return this.#spans(address, 4) ? (this.readU16(address)! | (this.readU16(address + 2)! << 16)) >>> 0 : undefined
    const at = this.#readAt(address, 4)
    return at < 0 ? undefined : this.#view.getUint32(at, true)
  }

  readU64(address: number): bigint | undefined {
    if ((address & FRAME_MASK) > FRAME_SIZE - 8)
      return this.#spans(address, 8)
        ? BigInt(this.readU32(address)!) | (BigInt(this.readU32(address + 4)!) << 32n)
        : undefined
    const at = this.#readAt(address, 8)
    return at < 0 ? undefined : this.#view.getBigUint64(at, true)
  }

  /** Host address for reading inside one frame, or -1. */
  #readAt(address: number, length: number): number {
    const slot = this.index.find(address, length)
    return slot ? this.forRead(slot, address) : NO_FRAME
  }
  #spans(address: number, length: number): boolean {
    return this.index.find(address, length) !== undefined
  }

  readBytes(address: number, into: Uint8Array): boolean {
    const { length } = into
    const slot = this.index.find(address, length)
    if (!slot) return false
    for (let done = 0; done < length;) {
      const piece = Math.min(FRAME_SIZE - ((address + done) & FRAME_MASK), length - done)
      const at = this.forRead(slot, address + done)
      if (at < 0) return false
      into.set(this.#bytes.subarray(at, at + piece), done)
      done += piece
    }
    return true
  }

  writeU8(address: number, value: number): boolean {
    const at = this.#writeAt(address, 1)
    if (at < 0) return false
    this.#bytes[at] = value
    this.host.noteWrite(hpa(at), 1)
    return true
  }

  writeU16(address: number, value: number): boolean {
    if ((address & FRAME_MASK) > FRAME_SIZE - 2)
      return this.isRam(address, 2) && this.writeU8(address, value) && this.writeU8(address + 1, value >> 8)
    const at = this.#writeAt(address, 2)
    if (at < 0) return false
    this.#view.setUint16(at, value, true)
    this.host.noteWrite(hpa(at), 2)
    return true
  }

  writeU32(address: number, value: number): boolean {
    if ((address & FRAME_MASK) > FRAME_SIZE - 4)
      return this.isRam(address, 4) && this.writeU16(address, value) && this.writeU16(address + 2, value >> 16)
    const at = this.#writeAt(address, 4)
    if (at < 0) return false
    this.#view.setUint32(at, value, true)
    this.host.noteWrite(hpa(at), 4)
    return true
  }

  writeU64(address: number, value: bigint): boolean {
    if ((address & FRAME_MASK) > FRAME_SIZE - 8)
      return (
        this.isRam(address, 8) &&
        this.writeU32(address, Number(value & 0xffff_ffffn)) &&
        this.writeU32(address + 4, Number((value >> 32n) & 0xffff_ffffn))
      )
    const at = this.#writeAt(address, 8)
    if (at < 0) return false
    this.#view.setBigUint64(at, value, true)
    this.host.noteWrite(hpa(at), 8)
    return true
  }

  writeBytes(address: number, from: Uint8Array): boolean {
    const slot = this.index.find(address, from.length)
    return slot?.ram === true && this.#put(slot, address, from)
  }

  writeRom(address: number, from: Uint8Array): boolean {
    const slot = this.index.find(address, from.length)
    return slot !== undefined && this.#put(slot, address, from)
  }

  /** Host address for writing RAM inside one frame, or -1. */
  #writeAt(address: number, length: number): number {
    const slot = this.index.find(address, length)
    return slot?.ram ? this.forWrite(slot, address) : NO_FRAME
  }

  #put(slot: Slot, address: number, from: Uint8Array): boolean {
    const { length } = from
    const stop = address + length
    for (let done = 0; done < length;) {
      const at = this.#forPiece(slot, address + done, stop)
      if (at < 0) return false
      let end = done + FRAME_SIZE - ((address + done) & FRAME_MASK)
      // Frames that are contiguous in host memory, as in a large run, are written at once.
      while (end < length && this.#forPiece(slot, address + end, stop) === at + end - done) end += FRAME_SIZE
      if (end > length) end = length
      this.#bytes.set(done === 0 && end === length ? from : from.subarray(done, end), at)
      this.host.noteWrite(hpa(at), end - done)
      done = end
    }
    return true
  }

  /** `forWrite` for a page whose bytes up to `stop` are all written. */
  #forPiece(slot: Slot, address: number, stop: number): number {
    return this.forWrite(slot, address, (address & FRAME_MASK) === 0 && address + FRAME_SIZE <= stop)
  }

  fill(address: number, length: number, value: number): boolean {
    const slot = this.index.find(address, length)
    if (!slot?.ram) return false
    const stop = address + length
    for (let at = address, piece = 0; at < stop; at += piece) {
      piece = Math.min(FRAME_SIZE - (at & FRAME_MASK), stop - at)
      // Absent pages are zero already.
      if ((value & 0xff) === 0 && this.holdsNothing(slot, at)) continue
      const host = this.#forPiece(slot, at, stop)
      if (host < 0) return false
      this.#bytes.fill(value, host, host + piece)
      this.host.noteWrite(hpa(host), piece)
    }
    return true
  }

  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    const write = access === 'write'
    for (const { address, length } of pieces) if (!this.isRam(address, length)) return undefined
    const starts: number[] = []
    const ends: number[] = []
    let last = -1
    for (const { address, length } of pieces) {
      const slot = this.index.find(address, length)!
      for (let done = 0; done < length;) {
        const size = Math.min(FRAME_SIZE - ((address + done) & FRAME_MASK), length - done)
        const at = write ? this.forWrite(slot, address + done) : this.forReadLease(slot, address + done)
        if (at < 0) return undefined
        if (last >= 0 && ends[last] === at) ends[last] = at + size
        else last = starts.push(at) && ends.push(at + size) - 1
        done += size
      }
    }
    const lent = this.leases.begin(starts, ends)
    return {
      views: starts.map((start, index) => this.#bytes.subarray(start, ends[index])),
      end: () => {
        if (write) {
          starts.forEach((start, index) => this.host.noteWrite(hpa(start), ends[index]! - start))
          if (this.dirty) this.#markDirty(pieces)
        }
        this.leases.end(lent)
      },
    }
  }

  #markDirty(pieces: readonly MemoryPiece[]): void {
    for (const { address, length } of pieces) {
      const slot = this.index.find(address, length)!
      const end = this.index.entry(slot, address + length - 1)
      for (let entry = this.index.entry(slot, address); entry <= end; entry++) this.dirty![entry] = 1
    }
  }
}
