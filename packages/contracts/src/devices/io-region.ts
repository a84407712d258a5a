/** A device's registers: a handler, and the claimed range that it answers for. */

import type { IoSize } from './io-bus.ts'

/**
 * Registers at a range of ports or guest-physical addresses. `offset` is from the range's base and inside it. Values are unsigned numbers of `size`
 * bytes; `read` may answer `IO_DEFERRED`, `write` may return false for the same. Called in the middle of an instruction: must be fast, must not
 * throw, and must not allocate on hot paths. Slow work is started here and signalled later by an interrupt.
 */
export interface IoHandler {
  read(offset: number, size: IoSize): number
  write(offset: number, size: IoSize, value: number): boolean | void
  /** Eight bytes at once. Without these the bus makes two accesses of four, low half first. */
  read64?(offset: number): bigint
  write64?(offset: number, value: bigint): boolean | void
}

/** A claimed range. `move` moves it (a PCI BAR); `disable` releases the addresses for the time being. */
export interface IoRegion {
  readonly base: number
  readonly length: number
  readonly enabled: boolean
  move(base: number): void
  enable(): void
  disable(): void
}
