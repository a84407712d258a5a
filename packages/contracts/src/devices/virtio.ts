/** Virtio as a device's author sees it: chains of descriptors, queues, a port to the driver. Knows no ring format and no transport. */

import type { Device } from './device.ts'
import type { MemoryLease } from '../memory/dma-memory.ts'
import type { Snapshot } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/**
 * One buffer that the driver made available: device-readable bytes, then device-writable bytes. However the driver cut it into descriptors,
 * a device sees two stretches of bytes. Everything was checked: it lies in guest RAM, has an end, and is what its lengths say.
 * Valid until it is pushed back, or the driver resets; from then on each method does nothing and answers false.
 */
export interface DescriptorChain {
  /** Bytes that the device may read. */
  readonly readable: number
  /** Bytes that the device may write. */
  readonly writable: number
  /** Copy device-readable bytes from `offset`. False, and nothing copied, if there are fewer. */
  read(offset: number, into: Uint8Array): boolean
  /** Copy into the device-writable bytes at `offset`. False, and nothing copied, if there is less room. */
  write(offset: number, from: Uint8Array): boolean
  fill(offset: number, length: number, value: number): boolean
  /**
   * Lend bytes from `offset` to a transfer: device-readable ones for `read`, device-writable ones for `write`. Undefined if there are fewer. A
   * lease outlives the chain: say so by `VirtioDevice.settled`.
   */
  lease(offset: number, length: number, access: 'read' | 'write'): MemoryLease | undefined
  /** The stretches of guest memory themselves, readable ones first: for devices to which memory is the message (balloon). */
  readonly elements: number
  readonly readableElements: number
  elementAddress(index: number): number
  elementLength(index: number): number
}

/** A virtqueue that the driver enabled, from the device's side. */
export interface Virtqueue {
  readonly index: number
  readonly size: number
  /** The next available buffer. Undefined: none now; `process` is called when there is one. */
  pop(): DescriptorChain | undefined
  /** Give a buffer back, of whose writable bytes the first `written` were written. In any order, at any time. */
  push(chain: DescriptorChain, written: number): void
  /** Take back the last `pop`, as if it had not been. For devices that keep a buffer and are saved. */
  unpop(chain: DescriptorChain): void
  /** Send a used buffer notification if the driver wants one. Done by itself after `process`; call it after pushing at other times. */
  signal(): void
}

/** A device's way to its driver. */
export interface VirtioPort {
  /** Whether the driver accepted a feature (its bit number). */
  accepted(feature: number): boolean
  /** Undefined: the driver did not enable it. */
  queue(index: number): Virtqueue | undefined
  /** Bytes of `config` changed: tell the driver. */
  configChanged(): void
  /** The driver did what cannot be answered, or the device is at its end: DEVICE_NEEDS_RESET. */
  fail(reason: string): void
}

/** A virtio device: what differs between device types, and nothing else. Feature bits are numbers: 5 is VIRTIO_BLK_F_RO. */
export interface VirtioDevice {
  /** As in "Device Types": 2 is a block device. */
  readonly deviceId: number
  /** PCI class code 0xBBSSPP, should the transport be PCI. */
  readonly pciClass?: number
  /** Bits of the device type (0 to 23 and from 50). Those of rings and transport are the transport's affair. */
  readonly features?: readonly number[]
  /** Most entries of each queue: powers of two. */
  readonly queueSizes: readonly number[]
  /** Device configuration, little-endian. The device changes it in place and calls `configChanged`. */
  readonly config?: Uint8Array
  /** Can it work with this subset of its features? Absent: with any. */
  accepts?(accepted: (feature: number) => boolean): boolean
  /** The driver wrote the configuration. Called for bytes inside `config` only, which does not change by itself. */
  writeConfig?(offset: number, size: 1 | 2 | 4, value: number): void
  /** DRIVER_OK: queues and features are final. */
  start?(): void
  /** There may be buffers in a queue. Only between `start` and `stop`. */
  process(queue: Virtqueue): void
  /** The driver reset one queue: what was popped from it is gone. */
  queueReset?(index: number): void
  /** The driver reset the device, or the machine was reset: all queues are gone. */
  stop?(): void
  /** False: transfers of before the last reset, of the device or of a queue, still touch memory; the reset is not over. Absent: true. */
  readonly settled?: boolean
  save?(): Snapshot
  /** The driver's queues and features are as they were. */
  restore?(snapshot: Snapshot): void
  quiesce?(): Promise<void>
  dispose?(): void | Promise<void>
  /** As `Device.offers`. */
  readonly offers?: Device['offers']
}

/**
 * Offered by an I/O model that has a virtio transport; which one (PCI, MMIO) is the stack's choice. A device's `create` returns what
 * `attach` gives: `context.capability(VirtioTransport).attach((port) => new Entropy(port, source))`.
 */
export interface VirtioTransport {
  attach(create: (port: VirtioPort) => VirtioDevice): Device
}
export const VirtioTransport = token<VirtioTransport>('VirtioTransport')
