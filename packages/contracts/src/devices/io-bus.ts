/** Ports and memory-mapped registers, as the CPU mode accesses them. Independent of device types. */

import type { Gpa } from '../base/address.ts'
import { token } from '../base/token.ts'

/**
 * Answer of a device that is not ready: the access becomes a `portIo` or `mmio` exit, which the caller of `run` completes. Distinct from all values
 * of hardware, which are unsigned.
 */
export const IO_DEFERRED = -1
export const IO_DEFERRED_64 = -1n

/** Size of one access in bytes. */
export type IoSize = 1 | 2 | 4

/**
 * One per VM, made by the kernel from what devices registered. Called by the CPU mode on every access that is not memory. Values are unsigned. Reads
 * of unclaimed addresses return all ones, writes are ignored; both are counted.
 */
export interface IoBus {
  /** @hot Value, or `IO_DEFERRED`. */
  readPort(port: number, size: IoSize): number
  /** @hot False: deferred. */
  writePort(port: number, size: IoSize, value: number): boolean
  /** @hot Value, or `IO_DEFERRED`. The access does not cross a 4-byte boundary more than the device allows; the bus splits. */
  readMmio(address: Gpa, size: IoSize): number
  /** @hot False: deferred. */
  writeMmio(address: Gpa, size: IoSize, value: number): boolean
  /** Eight bytes at once: two accesses of four (low first) unless the device takes eight. Or `IO_DEFERRED_64`. */
  readMmio64(address: Gpa): bigint
  writeMmio64(address: Gpa, value: bigint): boolean
}
export const IoBus = token<IoBus>('IoBus')
