/** The host's memory as its devices see it without an IOMMU: every host-physical address of RAM. */

import { FRAME_SIZE, hpa } from '@nonroot/contracts'
import type { DmaMemory, HostMemory, MemoryLease, MemoryPiece } from '@nonroot/contracts'

export class HostDma implements DmaMemory {
  readonly #host: HostMemory

  constructor(host: HostMemory) {
    this.#host = host
  }

  isRam(address: number, length: number): boolean {
    return (
      Number.isSafeInteger(address) &&
      Number.isSafeInteger(length) &&
      // What lies below the first frame is no memory that anything is given.
      address >= FRAME_SIZE &&
      length >= 0 &&
      address + length <= this.#host.bytes.length
    )
  }

  readU8(address: number): number | undefined {
    return this.isRam(address, 1) ? this.#host.bytes[address] : undefined
  }
  readU16(address: number): number | undefined {
    return this.isRam(address, 2) ? this.#host.view.getUint16(address, true) : undefined
  }
  readU32(address: number): number | undefined {
    return this.isRam(address, 4) ? this.#host.view.getUint32(address, true) : undefined
  }
  readU64(address: number): bigint | undefined {
    return this.isRam(address, 8) ? this.#host.view.getBigUint64(address, true) : undefined
  }
  readBytes(address: number, into: Uint8Array): boolean {
    if (!this.isRam(address, into.length)) return false
    into.set(this.#host.bytes.subarray(address, address + into.length))
    return true
  }

  writeU8(address: number, value: number): boolean {
    if (!this.isRam(address, 1)) return false
    this.#host.bytes[address] = value
    return this.#wrote(address, 1)
  }
  writeU16(address: number, value: number): boolean {
    if (!this.isRam(address, 2)) return false
    this.#host.view.setUint16(address, value, true)
    return this.#wrote(address, 2)
  }
  writeU32(address: number, value: number): boolean {
    if (!this.isRam(address, 4)) return false
    this.#host.view.setUint32(address, value, true)
    return this.#wrote(address, 4)
  }
  writeU64(address: number, value: bigint): boolean {
    if (!this.isRam(address, 8)) return false
    this.#host.view.setBigUint64(address, value, true)
    return this.#wrote(address, 8)
  }
  writeBytes(address: number, from: Uint8Array): boolean {
    if (!this.isRam(address, from.length)) return false
    this.#host.bytes.set(from, address)
    return this.#wrote(address, from.length)
  }
  fill(address: number, length: number, value: number): boolean {
    if (!this.isRam(address, length)) return false
    this.#host.bytes.fill(value, address, address + length)
    return this.#wrote(address, length)
  }

  #wrote(address: number, length: number): true {
    if (length > 0) this.#host.noteWrite(hpa(address), length)
    return true
  }

  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    const starts: number[] = []
    const ends: number[] = []
    let last = -1
    for (const { address, length } of pieces) {
      if (!this.isRam(address, length)) return undefined
      if (last >= 0 && ends[last] === address) ends[last] = address + length
      else {
        starts.push(address)
        last = ends.push(address + length) - 1
      }
    }
    return {
      views: starts.map((start, index) => this.#host.bytes.subarray(start, ends[index])),
      end: () => {
        if (access === 'write') starts.forEach((start, index) => this.#wrote(start, ends[index]! - start))
      },
    }
  }
}
