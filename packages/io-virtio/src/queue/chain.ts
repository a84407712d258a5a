/** A descriptor chain, checked and flattened: where its bytes are, readable ones first. Independent of rings. @hot */

import type { DescriptorChain, MemoryLease, MemoryPiece } from '@nonroot/contracts'
import type { GuestAccess } from './guest-access.ts'

/** Descriptor flags, of both ring formats. ("Virtqueue Descriptor Table", "Packed Virtqueues") */
export const DescriptorFlag = { next: 1, write: 2, indirect: 4, avail: 1 << 7, used: 1 << 15 } as const
export const DESCRIPTOR_SIZE = 16

/** Most bytes of a chain: "Drivers MUST NOT add a descriptor chain longer than 2^32 bytes in total". */
const MOST_BYTES = 2 ** 32
const FIRST_ROOM = 16

/** Whether the queue is still there: shared by a queue and its chains. */
export interface Lifetime {
  open: boolean
}

export class Chain implements DescriptorChain {
  /** What names it in the used ring: index of the head, or buffer ID. */
  id = 0
  /** Ring entries it takes (packed ring). */
  slots = 0
  /** Popped and not pushed. */
  held = false
  /** Pushed, waiting for chains before it (VIRTIO_F_IN_ORDER). */
  done = false
  written = 0
  readable = 0
  writable = 0
  elements = 0
  readableElements = 0
  #addresses = new Float64Array(FIRST_ROOM)
  #lengths = new Float64Array(FIRST_ROOM)
  readonly #access: GuestAccess
  readonly #lifetime: Lifetime

  constructor(access: GuestAccess, lifetime: Lifetime) {
    this.#access = access
    this.#lifetime = lifetime
  }

  clear(): void {
    this.id = this.slots = this.written = 0
    this.readable = this.writable = this.elements = this.readableElements = 0
    this.done = false
  }

  /** Append what a descriptor says. Undefined, or what is wrong with it. */
  add(address: number, length: number, writable: boolean, most: number): string | undefined {
    if (!writable && this.writable > 0) return 'a device-readable descriptor after a device-writable one'
    if (length === 0) return undefined
    if (this.elements >= most) return `a chain of more than ${most} descriptors`
    if (this.readable + this.writable + length > MOST_BYTES) return 'a chain of more than 2^32 bytes'
    if (!this.#access.isRam(address, length))
      return `a buffer outside memory (0x${address.toString(16)}, ${length} bytes)`
    if (this.elements === this.#addresses.length) this.#grow()
    this.#addresses[this.elements] = address
    this.#lengths[this.elements] = length
    this.elements++
    if (writable) this.writable += length
    else {
      this.readable += length
      this.readableElements++
    }
    return undefined
  }

  #grow(): void {
    const addresses = new Float64Array(this.#addresses.length * 2)
    const lengths = new Float64Array(this.#lengths.length * 2)
    addresses.set(this.#addresses)
    lengths.set(this.#lengths)
    this.#addresses = addresses
    this.#lengths = lengths
  }

  get #valid(): boolean {
    return this.held && this.#lifetime.open
  }

  read(offset: number, into: Uint8Array): boolean {
    if (!this.#valid || offset < 0 || offset + into.length > this.readable) return false
    return this.#copy(0, this.readableElements, offset, into, false)
  }

  write(offset: number, from: Uint8Array): boolean {
    if (!this.#valid || offset < 0 || offset + from.length > this.writable) return false
    return this.#copy(this.readableElements, this.elements, offset, from, true)
  }

  #copy(first: number, end: number, offset: number, bytes: Uint8Array, toGuest: boolean): boolean {
    const { memory } = this.#access
    let skip = offset
    let done = 0
    for (let index = first; index < end && done < bytes.length; index++) {
      const length = this.#lengths[index]!
      if (skip >= length) {
        skip -= length
        continue
      }
      const piece = Math.min(length - skip, bytes.length - done)
      const part = piece === bytes.length ? bytes : bytes.subarray(done, done + piece)
      const at = this.#addresses[index]! + skip
      if (!(toGuest ? memory.writeBytes(at, part) : memory.readBytes(at, part))) return false
      done += piece
      skip = 0
    }
    return true
  }

  fill(offset: number, length: number, value: number): boolean {
    if (!this.#valid || offset < 0 || offset + length > this.writable) return false
    let skip = offset
    let left = length
    for (let index = this.readableElements; index < this.elements && left > 0; index++) {
      const room = this.#lengths[index]!
      if (skip >= room) {
        skip -= room
        continue
      }
      const piece = Math.min(room - skip, left)
      if (!this.#access.memory.fill(this.#addresses[index]! + skip, piece, value)) return false
      left -= piece
      skip = 0
    }
    return true
  }

  lease(offset: number, length: number, access: 'read' | 'write'): MemoryLease | undefined {
    const write = access === 'write'
    if (!this.#valid || offset < 0 || offset + length > (write ? this.writable : this.readable)) return undefined
    const pieces: MemoryPiece[] = []
    let skip = offset
    let left = length
    for (let index = write ? this.readableElements : 0; left > 0; index++) {
      const room = this.#lengths[index]!
      if (skip >= room) {
        skip -= room
        continue
      }
      const piece = Math.min(room - skip, left)
      pieces.push({ address: this.#addresses[index]! + skip, length: piece })
      left -= piece
      skip = 0
    }
    return this.#access.memory.lease(pieces, access)
  }

  elementAddress(index: number): number {
    return this.#addresses[index] ?? -1
  }

  elementLength(index: number): number {
    return index < this.elements ? this.#lengths[index]! : 0
  }
}
