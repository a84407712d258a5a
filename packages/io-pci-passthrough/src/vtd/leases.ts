/** Transfers in progress behind the remapping unit: an invalidation is complete only when those that it affects have ended. ("DMA Draining") */

import type { MemoryLease, MemoryPiece } from '@nonroot/contracts'

interface Transfer {
  readonly domain: number | undefined
  readonly pieces: readonly MemoryPiece[]
}

export class Leases {
  readonly #current = new Set<Transfer>()
  /** What an invalidation waits for, until the wait descriptor behind it is reached. */
  readonly #affected = new Set<Transfer>()
  /** Called when nothing affected is left. */
  onDrained: () => void = () => {}

  begin(domain: number | undefined, pieces: readonly MemoryPiece[], lease: MemoryLease): MemoryLease {
    const transfer: Transfer = { domain, pieces }
    this.#current.add(transfer)
    return {
      views: lease.views,
      end: () => {
        lease.end()
        this.#current.delete(transfer)
        if (this.#affected.delete(transfer) && this.#affected.size === 0) this.onDrained()
      },
    }
  }

  /** Pages of a domain are invalidated, or all of it, or everything. */
  affect(domain?: number, page?: number, order = 0): void {
    const start = page === undefined ? 0 : (page - (page % 2 ** order)) * 4096
    const end = page === undefined ? Infinity : start + 2 ** order * 4096
    for (const transfer of this.#current) {
      if (domain !== undefined && transfer.domain !== domain) continue
      if (transfer.pieces.some(({ address, length }) => address < end && address + length > start))
        this.#affected.add(transfer)
    }
  }

  get drained(): boolean {
    return this.#affected.size === 0
  }
}
