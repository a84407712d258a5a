/** A device's memory behind the remapping unit: each access is translated page by page. @hot */

import type { DmaMemory, DmaRequester, MemoryLease, MemoryPiece } from '@nonroot/contracts'
import { MESSAGES } from './facts.ts'
import type { Leases } from './leases.ts'
import type { Translation } from './translation.ts'

const PAGE = 4096
/** Requesters that are no PCI function: their ID has no context. */
const NO_REQUESTER = 0xffff

interface Physical {
  readonly address: number
  length: number
}

export interface TranslatedMemoryOptions {
  readonly requester: DmaRequester
  /** All of memory. */
  readonly memory: DmaMemory
  readonly translation: Translation
  readonly leases: Leases
  /** A DMA write to the interrupt range. */
  readonly message: (requester: number, address: number, data: number) => void
  /** A requester that is no PCI function is not translated. */
  readonly bypass: boolean
}

export class TranslatedMemory implements DmaMemory {
  readonly untranslated: DmaMemory
  readonly #requester: DmaRequester
  readonly #memory: DmaMemory
  readonly #translation: Translation
  readonly #leases: Leases
  readonly #message: TranslatedMemoryOptions['message']
  readonly #bypass: boolean

  constructor({ requester, memory, translation, leases, message, bypass }: TranslatedMemoryOptions) {
    this.#requester = requester
    this.#memory = this.untranslated = memory
    this.#translation = translation
    this.#leases = leases
    this.#message = message
    this.#bypass = bypass
  }

  get #id(): number {
    return this.#requester.requesterId ?? NO_REQUESTER
  }

  #at(address: number, write: boolean, quiet = false): number {
    if (this.#bypass && this.#requester.requesterId === undefined) return address
    return this.#translation.translate(this.#id, address, write, quiet)
  }

  isRam(address: number, length: number): boolean {
    if (!isRange(address, length)) return false
    for (let done = 0; done < length;) {
      const size = Math.min(PAGE - ((address + done) % PAGE), length - done)
      const at = this.#at(address + done, false, true)
      if (at < 0 || !this.#memory.isRam(at, size)) return false
      done += size
    }
    return true
  }

  readU8(address: number): number | undefined {
    const at = isRange(address, 1) ? this.#at(address, false) : -1
    return at < 0 ? undefined : this.#memory.readU8(at)
  }
  readU16(address: number): number | undefined {
    if (address % PAGE > PAGE - 2) return this.#view(address, 2)?.getUint16(0, true)
    const at = isRange(address, 2) ? this.#at(address, false) : -1
    return at < 0 ? undefined : this.#memory.readU16(at)
  }
  readU32(address: number): number | undefined {
    if (address % PAGE > PAGE - 4) return this.#view(address, 4)?.getUint32(0, true)
    const at = isRange(address, 4) ? this.#at(address, false) : -1
    return at < 0 ? undefined : this.#memory.readU32(at)
  }
  readU64(address: number): bigint | undefined {
    if (address % PAGE > PAGE - 8) return this.#view(address, 8)?.getBigUint64(0, true)
    const at = isRange(address, 8) ? this.#at(address, false) : -1
    return at < 0 ? undefined : this.#memory.readU64(at)
  }
  #view(address: number, length: number): DataView | undefined {
    const bytes = new Uint8Array(length)
    return this.readBytes(address, bytes) ? new DataView(bytes.buffer) : undefined
  }

  readBytes(address: number, into: Uint8Array): boolean {
    const { length } = into
    if (address % PAGE <= PAGE - length && isRange(address, length)) {
      const at = this.#at(address, false)
      return at >= 0 && this.#memory.readBytes(at, into)
    }
    const pieces = this.#pieces(address, length, false)
    if (!pieces) return false
    let done = 0
    return pieces.every((piece) => {
      const part = into.subarray(done, (done += piece.length))
      return this.#memory.readBytes(piece.address, part)
    })
  }

  writeU8(address: number, value: number): boolean {
    const at = isRange(address, 1) ? this.#at(address, true) : -1
    return at >= 0 && this.#memory.writeU8(at, value)
  }
  writeU16(address: number, value: number): boolean {
    if (address % PAGE > PAGE - 2) return this.writeBytes(address, bytesOf(BigInt(value), 2))
    const at = isRange(address, 2) ? this.#at(address, true) : -1
    return at >= 0 && this.#memory.writeU16(at, value)
  }
  writeU32(address: number, value: number): boolean {
    if (address >= MESSAGES.start && address < MESSAGES.end && address % 4 === 0) {
      this.#message(this.#id, address, value >>> 0)
      return true
    }
    if (address % PAGE > PAGE - 4) return this.writeBytes(address, bytesOf(BigInt(value >>> 0), 4))
    const at = isRange(address, 4) ? this.#at(address, true) : -1
    return at >= 0 && this.#memory.writeU32(at, value)
  }
  writeU64(address: number, value: bigint): boolean {
    if (address % PAGE > PAGE - 8) return this.writeBytes(address, bytesOf(value, 8))
    const at = isRange(address, 8) ? this.#at(address, true) : -1
    return at >= 0 && this.#memory.writeU64(at, value)
  }

  writeBytes(address: number, from: Uint8Array): boolean {
    const { length } = from
    if (address % PAGE <= PAGE - length && isRange(address, length)) {
      const at = this.#at(address, true)
      return at >= 0 && this.#memory.writeBytes(at, from)
    }
    const pieces = this.#writable(address, length)
    if (!pieces) return false
    let done = 0
    return pieces.every((piece) => {
      const part = from.subarray(done, (done += piece.length))
      return this.#memory.writeBytes(piece.address, part)
    })
  }

  fill(address: number, length: number, value: number): boolean {
    return (
      this.#writable(address, length)?.every((piece) => this.#memory.fill(piece.address, piece.length, value)) ?? false
    )
  }

  /** All of it can be written, or nothing is. */
  #writable(address: number, length: number): MemoryPiece[] | undefined {
    const pieces = this.#pieces(address, length, true)
    return pieces?.every((piece) => this.#memory.isRam(piece.address, piece.length)) ? pieces : undefined
  }

  #pieces(address: number, length: number, write: boolean): MemoryPiece[] | undefined {
    if (!isRange(address, length)) return undefined
    const pieces: Physical[] = []
    return this.#translateInto(pieces, address, length, write) ? pieces : undefined
  }

  /** Neighbours are joined. */
  #translateInto(pieces: Physical[], address: number, length: number, write: boolean): boolean {
    for (let done = 0; done < length;) {
      const size = Math.min(PAGE - ((address + done) % PAGE), length - done)
      const at = this.#at(address + done, write)
      if (at < 0) return false
      const last = pieces.length > 0 ? pieces[pieces.length - 1] : undefined
      if (last !== undefined && last.address + last.length === at) last.length += size
      else pieces.push({ address: at, length: size })
      done += size
    }
    return true
  }

  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    const physical: Physical[] = []
    for (const { address, length } of pieces) {
      if (!isRange(address, length) || !this.#translateInto(physical, address, length, access === 'write'))
        return undefined
    }
    const lease = this.#memory.lease(physical, access)
    return lease && this.#leases.begin(this.#translation.domainOf(this.#id), pieces, lease)
  }
}

const isRange = (address: number, length: number): boolean =>
  Number.isSafeInteger(address) && Number.isSafeInteger(length) && address >= 0 && length >= 0

function bytesOf(value: bigint, length: number): Uint8Array {
  const view = new DataView(new ArrayBuffer(8))
  view.setBigUint64(0, value, true)
  return new Uint8Array(view.buffer, 0, length)
}
