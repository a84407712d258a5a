/** Where a command's data is: pieces of guest memory, as a controller's scatter list names them. Every list is read and checked here. */

import type { GuestMemory, MemoryLease, MemoryPiece } from '@nonroot/contracts'

/** Entries of a scatter list that are looked at: AHCI's most. A list that is longer is the guest's to notice. */
export const MOST_PIECES = 65_535

export class DataBuffer {
  readonly #memory: GuestMemory
  readonly #pieces: readonly MemoryPiece[]
  /** Bytes that the list has room for. */
  readonly length: number

  constructor(memory: GuestMemory, pieces: readonly MemoryPiece[]) {
    this.#memory = memory
    this.#pieces = pieces
    this.length = pieces.reduce((sum, { length }) => sum + length, 0)
  }

  /** The first `length` bytes, lent. Undefined: there are fewer, or not all of them are RAM. */
  lease(length: number, access: 'read' | 'write'): MemoryLease | undefined {
    const pieces = this.#first(length)
    return pieces && this.#memory.lease(pieces, access)
  }

  /** Copy to the guest. False: no room, or no RAM there. */
  write(bytes: Uint8Array): boolean {
    const lease = this.lease(bytes.length, 'write')
    if (!lease) return false
    let done = 0
    for (const view of lease.views) {
      view.set(bytes.subarray(done, done + view.length))
      done += view.length
    }
    lease.end()
    return true
  }

  /** Copy from the guest. */
  read(length: number): Uint8Array | undefined {
    const lease = this.lease(length, 'read')
    if (!lease) return undefined
    const bytes = new Uint8Array(length)
    let done = 0
    for (const view of lease.views) {
      bytes.set(view, done)
      done += view.length
    }
    lease.end()
    return bytes
  }

  #first(length: number): MemoryPiece[] | undefined {
    const pieces: MemoryPiece[] = []
    let left = length
    for (const piece of this.#pieces) {
      if (left === 0) break
      const size = Math.min(piece.length, left)
      pieces.push({ address: piece.address, length: size })
      left -= size
    }
    return left === 0 ? pieces : undefined
  }
}
