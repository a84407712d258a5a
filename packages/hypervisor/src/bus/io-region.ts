/** A claimed range of ports or addresses. */

import type { Counter, IoHandler, IoRegion } from '@nonroot/contracts'

/** The range that one device claimed. Its bus is notified of every change. */
export class ClaimedRegion implements IoRegion {
  readonly owner: string
  readonly handler: IoHandler
  readonly length: number
  /** Number of accesses. */
  readonly accesses: Counter
  readonly #changed: () => void
  base: number
  enabled = true

  constructor(owner: string, base: number, length: number, handler: IoHandler, accesses: Counter, changed: () => void) {
    this.owner = owner
    this.base = base
    this.length = length
    this.handler = handler
    this.accesses = accesses
    this.#changed = changed
  }

  move(base: number): void {
    if (base === this.base) return
    this.base = base
    if (this.enabled) this.#changed()
  }

  enable(): void {
    if (this.enabled) return
    this.enabled = true
    this.#changed()
  }

  disable(): void {
    if (!this.enabled) return
    this.enabled = false
    this.#changed()
  }

  overlaps(base: number, length: number): boolean {
    return this.enabled && base < this.base + this.length && this.base < base + length
  }
}
