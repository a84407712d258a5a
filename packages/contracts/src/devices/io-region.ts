/** A device's registers: a handler, and the claimed range that it answers for. */

import type { IoSize } from './io-bus.ts'

/**
 * Registers at a range of ports or guest-physical addresses. `offset` is from the range's base and inside it. Values are unsigned numbers of `size`
 * bytes; `read` may answer `IO_DEFERRED`, `write` may return false for the same. Called in the middle of an instruction: be quick, do not throw, do not allocate
 * where it is hot. Slow work is started here and completed later through the interrupt line.
 */
export interface IoHandler {
  read(offset: number, size: IoSize): number
  write(offset: number, size: IoSize, value: number): boolean | void
  /** Eight bytes at once. Without these the bus makes two accesses of four, low half first. */
  read64?(offset: number): bigint
  write64?(offset: number, value: bigint): boolean | void
}

/** A claimed range. A device that moves (a PCI BAR) moves it; `disable` gives the addresses back for now. */
export interface IoRegion {
  readonly base: number
  readonly length: number
  readonly enabled: boolean
  move(base: number): void
  enable(): void
  disable(): void
}
