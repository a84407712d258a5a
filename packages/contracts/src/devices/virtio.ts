/** Virtio as a device's author sees it: descriptor chains, queues, a port to the driver. Independent of ring formats and transports. */

import type { Device } from './device.ts'
import type { MemoryLease } from '../memory/dma-memory.ts'
import type { Snapshot } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/**
 * One buffer that the driver made available: device-readable bytes, then device-writable bytes. However the driver split it into descriptors, a
 * device sees two stretches of bytes. The chain has been checked: it is in guest RAM, has an end, and matches its lengths. It is valid until it is
 * pushed or the driver resets; afterwards each method does nothing and returns false.
 */
export interface DescriptorChain {
  /** Bytes that the device may read. */
  readonly readable: number
  /** Bytes that the device may write. */
  readonly writable: number
  /** Copies device-readable bytes from `offset`. False, and nothing copied, if there are fewer. */
  read(offset: number, into: Uint8Array): boolean
  /** Copies into the device-writable bytes at `offset`. False, and nothing copied, if there is less room. */
  write(offset: number, from: Uint8Array): boolean
  fill(offset: number, length: number, value: number): boolean
  /**
   * Lends bytes from `offset` to a transfer: device-readable ones for `read`, device-writable ones for `write`. Undefined if there are fewer. A lease
   * outlives the chain: `VirtioDevice.settled` must report it.
   */
  lease(offset: number, length: number, access: 'read' | 'write'): MemoryLease | undefined
  /** The stretches of guest memory themselves, readable ones first: for devices whose messages are addresses (balloon). */
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
  /** Returns a buffer of whose writable bytes the first `written` were written. In any order, at any time. */
  push(chain: DescriptorChain, written: number): void
  /** Undoes the last `pop`. For devices that hold a buffer when they are saved. */
  unpop(chain: DescriptorChain): void
  /** Sends a used buffer notification if the driver wants one. Called automatically after `process`; call it after pushing at other times. */
  signal(): void
}

/** A device's connection to its driver. */
export interface VirtioPort {
  /** Whether the driver accepted a feature (its bit number). */
  accepted(feature: number): boolean
  /** Undefined if the driver did not enable it. */
  queue(index: number): Virtqueue | undefined
  /** Notifies the driver that bytes of `config` have changed. */
  configChanged(): void
  /** Sets DEVICE_NEEDS_RESET, after an unrecoverable error of driver or device. */
  fail(reason: string): void
}

/** A virtio device: only what differs between device types. Feature bits are numbers: 5 is VIRTIO_BLK_F_RO. */
export interface VirtioDevice {
  /** As in "Device Types": 2 is a block device. */
  readonly deviceId: number
  /** PCI class code 0xBBSSPP, if the transport is PCI. */
  readonly pciClass?: number
  /** Bits of the device type (0 to 23 and from 50). The transport handles those of rings and transport. */
  readonly features?: readonly number[]
  /** Maximum entries of each queue: powers of two. */
  readonly queueSizes: readonly number[]
  /** Device configuration, little-endian. The device changes it in place and calls `configChanged`. */
  readonly config?: Uint8Array
  /** Whether it can work with this subset of its features. Absent: with any. */
  accepts?(accepted: (feature: number) => boolean): boolean
  /** The driver wrote the configuration. Called only for bytes inside `config`, which is not changed automatically. */
  writeConfig?(offset: number, size: 1 | 2 | 4, value: number): void
  /** DRIVER_OK: queues and features are final. */
  start?(): void
  /** There may be buffers in a queue. Only between `start` and `stop`. */
  process(queue: Virtqueue): void
  /** The driver reset one queue: chains popped from it are invalid. */
  queueReset?(index: number): void
  /** The driver reset the device, or the machine was reset: all queues are invalid. */
  stop?(): void
  /** False while transfers from before the last reset, of the device or of a queue, still access memory: the reset is not complete. Absent: true. */
  readonly settled?: boolean
  save?(): Snapshot
  /** Called with the driver's queues and features restored. */
  restore?(snapshot: Snapshot): void
  quiesce?(): Promise<void>
  dispose?(): void | Promise<void>
  /** Its driver ignores an IOMMU, as Linux's of the balloon does: queues and buffers are guest-physical. */
  readonly untranslated?: boolean
  /** As `Device.offers`. */
  readonly offers?: Device['offers']
}

/**
 * Offered by an I/O model that has a virtio transport; the stack selects which (PCI, MMIO). A device's `create` returns the result of `attach`:
 * `context.capability(VirtioTransport).attach((port) => new Entropy(port, source))`.
 */
export interface VirtioTransport {
  attach(create: (port: VirtioPort) => VirtioDevice): Device
}
export const VirtioTransport = token<VirtioTransport>('VirtioTransport')
