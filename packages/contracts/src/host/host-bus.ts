/** The host's own bus: where registers of the host's devices are, and how a processor whose tables lead there reaches them. */

import type { IoSize } from '../devices/io-bus.ts'

/**
 * The host's MMIO window, in host-physical addresses: above the 4 GiB that host memory has at most, at the top of the processor's 40 bits. A leaf of the
 * tables that the processor really walks may lead there.
 */
export const HOST_MMIO = { start: 0xff_0000_0000, length: 2 ** 32 } as const
/** Bits 63:32 of a leaf that leads there. */
export const HOST_MMIO_HIGH = 0xff

/** Registers by host-physical address. Unclaimed reads give all ones; values are unsigned. */
export interface HostBus {
  /** @hot */
  readMmio(address: number, size: IoSize): number
  /** @hot */
  writeMmio(address: number, size: IoSize, value: number): void
}
