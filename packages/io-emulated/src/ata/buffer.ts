/** Where a command's data is: guest memory that a controller's scatter list names, or a buffer of the controller's own. */

import type { DmaMemory, MemoryLease, MemoryPiece } from '@nonroot/contracts'

export interface DataBuffer {
  /** The first `length` bytes, lent. Undefined: there are fewer, or not all of them are RAM. */
  lease(length: number, access: 'read' | 'write'): MemoryLease | undefined
}

/** Copy to a buffer. False: no room, or no RAM there. */
export function fillBuffer(buffer: DataBuffer, bytes: Uint8Array): boolean {
  const lease = buffer.lease(bytes.length, 'write')
  if (!lease) return false
  let done = 0
  for (const view of lease.views) {
    view.set(bytes.subarray(done, done + view.length))
    done += view.length
  }
  lease.end()
  return true
}

/** Copy from a buffer. */
export function bufferBytes(buffer: DataBuffer, length: number): Uint8Array | undefined {
  const lease = buffer.lease(length, 'read')
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

/** What a guest's scatter list names. Checked when it is lent. */
export class GuestBuffer implements DataBuffer {
  readonly #memory: DmaMemory
  readonly #pieces: readonly MemoryPiece[]

  constructor(memory: DmaMemory, pieces: readonly MemoryPiece[]) {
    this.#memory = memory
    this.#pieces = pieces
  }

  lease(length: number, access: 'read' | 'write'): MemoryLease | undefined {
    const pieces: MemoryPiece[] = []
    let left = length
    for (const piece of this.#pieces) {
      if (left === 0) break
      const size = Math.min(piece.length, left)
      pieces.push({ address: piece.address, length: size })
      left -= size
    }
    return left === 0 ? this.#memory.lease(pieces, access) : undefined
  }
}
