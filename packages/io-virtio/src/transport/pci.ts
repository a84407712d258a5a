/** Virtio over PCI, modern only: one BAR with the structures, capabilities that name them, MSI-X. ("Virtio Over PCI Bus") */

import type {
  Device,
  DeviceContext,
  IoHandler,
  IoSize,
  PciCapability,
  PciFunction,
  VirtioDevice,
  VirtioPort,
} from '@nonroot/contracts'
import { NO_VECTOR, VirtioCore } from './core.ts'
import type { QueueRegisters, RingOptions, TransportLink } from './core.ts'
import { Cause, VENDOR_ID } from './facts.ts'

const VENDOR_SPECIFIC = 0x09
/** cfg_type. ("Virtio Structure PCI Capabilities") */
const Structure = { common: 1, notify: 2, isr: 3, device: 4, pciConfig: 5 } as const
const BAR = 0
const BAR_SIZE = 0x4000
const PAGE_SHIFT = 12
/** Each structure has a page of the BAR of its own. */
const Page = { common: 0, isr: 1, device: 2, notify: 3 } as const
/** A multiple of 4, as VIRTIO_F_NOTIFICATION_DATA wants it. */
const NOTIFY_MULTIPLIER = 4
const COMMON_SIZE = 64
/** Fields of struct virtio_pci_cap, from the capability's start. */
const Cap = { length: 2, type: 3, bar: 4, offset: 8, structureLength: 12, size: 16, data: 16 } as const
const OTHER_CLASS = 0x00ff00

type Create = (port: VirtioPort) => VirtioDevice

export function attachPci(context: DeviceContext, create: Create, options: RingOptions): Device {
  let transport: PciTransport | undefined
  const core = new VirtioCore(context, create, (made) => (transport = new PciTransport(made)), options)
  transport!.plug(context)
  return core
}

class PciTransport implements TransportLink, IoHandler {
  readonly #core: VirtioCore
  #function: PciFunction | undefined
  #isr = 0
  #configVector = NO_VECTOR
  /** Vectors that the MSI-X table has. */
  readonly #vectors: number
  /** The PCI configuration access capability's bytes, as the guest wrote them. */
  readonly #window = new DataView(new ArrayBuffer(Cap.size + 4))
  readonly #common: readonly CommonField[]

  constructor(core: VirtioCore) {
    this.#core = core
    this.#vectors = core.device.queueSizes.length + 1
    this.#common = this.#commonFields()
  }

  plug(context: DeviceContext): void {
    const { device } = this.#core
    const id = 0x1040 + device.deviceId
    this.#function = context.pci({
      vendorId: VENDOR_ID,
      deviceId: id,
      subsystemVendorId: VENDOR_ID,
      subsystemId: id,
      revision: 1,
      classCode: device.pciClass ?? OTHER_CLASS,
      bars: { [BAR]: { kind: 'mmio32', size: BAR_SIZE, handler: this } },
      capabilities: this.#capabilities(),
      msixVectors: this.#vectors,
      interruptPin: 'A',
    })
  }

  #capabilities(): PciCapability[] {
    const { device } = this.#core
    const capability = (type: number, page: number, length: number, extra = 0): Uint8Array => {
      const view = new DataView(new ArrayBuffer(Cap.size + extra))
      view.setUint8(Cap.length, view.byteLength)
      view.setUint8(Cap.type, type)
      view.setUint8(Cap.bar, BAR)
      view.setUint32(Cap.offset, page << PAGE_SHIFT, true)
      view.setUint32(Cap.structureLength, length, true)
      return new Uint8Array(view.buffer)
    }
    const of = (bytes: Uint8Array): PciCapability => ({ id: VENDOR_SPECIFIC, body: bytes.subarray(2) })
    const notify = capability(Structure.notify, Page.notify, device.queueSizes.length * NOTIFY_MULTIPLIER, 4)
    new DataView(notify.buffer).setUint32(Cap.size, NOTIFY_MULTIPLIER, true)
    const window = capability(Structure.pciConfig, 0, 0, 4)
    const writable = new Uint8Array(window.length)
    writable[Cap.bar] = 0xff
    writable.fill(0xff, Cap.offset)
    return [
      of(capability(Structure.common, Page.common, COMMON_SIZE)),
      of(capability(Structure.isr, Page.isr, 1)),
      ...(device.config?.length ? [of(capability(Structure.device, Page.device, device.config.length))] : []),
      of(notify),
      {
        id: VENDOR_SPECIFIC,
        body: window.subarray(2),
        writeMask: writable.subarray(2),
        handler: {
          read: (offset, size) => this.#readWindow(offset, size),
          write: (offset, size, value) => this.#writeWindow(offset, size, value),
        },
      },
    ]
  }

  // Interrupts

  signalQueue(index: number): void {
    this.#signal(Cause.queue, this.#core.queues[index]!.vector)
  }

  signalConfiguration(): void {
    this.#signal(Cause.configuration, this.#configVector)
  }

  #signal(cause: number, vector: number): void {
    const pciFunction = this.#function
    if (!pciFunction) return
    // "MUST set the Device Configuration Interrupt bit in ISR status before sending a device configuration change notification"
    if (cause === Cause.configuration || !pciFunction.msixEnabled) this.#isr |= cause
    if (!pciFunction.msixEnabled) pciFunction.interrupt.raise()
    else if (vector !== NO_VECTOR) pciFunction.signal(vector)
  }

  #takeIsr(): number {
    const isr = this.#isr
    this.#isr = 0
    this.#function?.interrupt.lower()
    return isr
  }

  // Structures in the BAR

  read(offset: number, size: IoSize): number {
    const within = offset & ((1 << PAGE_SHIFT) - 1)
    switch (offset >> PAGE_SHIFT) {
      case Page.common:
        return this.#readCommon(within, size)
      case Page.isr:
        return within === 0 ? this.#takeIsr() : 0
      case Page.device:
        return this.#core.readConfig(within, size)
      default:
        return 0
    }
  }

  write(offset: number, size: IoSize, value: number): void {
    const within = offset & ((1 << PAGE_SHIFT) - 1)
    const page = offset >> PAGE_SHIFT
    // Each queue has an address of its own: which one, the address says as well as the value.
    if (page === Page.notify) this.#core.kick(within >> 2)
    else if (page === Page.common)
      this.#common.find((field) => field.at === within && field.size === size)?.write?.(value)
    else if (page === Page.device) this.#core.writeConfig(within, size, value)
  }

  #readCommon(offset: number, size: IoSize): number {
    let value = 0
    for (const field of this.#common) {
      const shift = 8 * (field.at - offset)
      if (field.at + field.size <= offset || shift >= 8 * size) continue
      const bits = field.read()
      value |= shift >= 0 ? bits << shift : bits >>> -shift
    }
    return size === 4 ? value >>> 0 : value & (size === 2 ? 0xffff : 0xff)
  }

  /** struct virtio_pci_common_cfg. ("Common configuration structure layout") */
  #commonFields(): CommonField[] {
    const core = this.#core
    const queue = (): QueueRegisters | undefined => core.selected
    const area = (at: number, index: number): CommonField => ({
      at,
      size: 4,
      read: () => queue()?.areas[index] ?? 0,
      write: (value) => core.writeQueueArea(index, value),
    })
    return [
      { at: 0x00, size: 4, read: () => core.deviceFeatureSelect, write: (value) => (core.deviceFeatureSelect = value) },
      { at: 0x04, size: 4, read: () => core.deviceFeatures },
      { at: 0x08, size: 4, read: () => core.driverFeatureSelect, write: (value) => (core.driverFeatureSelect = value) },
      { at: 0x0c, size: 4, read: () => core.selectedDriverFeatures, write: (value) => core.writeDriverFeatures(value) },
      {
        at: 0x10,
        size: 2,
        read: () => this.#configVector,
        write: (value) => (this.#configVector = this.#vector(value)),
      },
      { at: 0x12, size: 2, read: () => core.queues.length },
      { at: 0x14, size: 1, read: () => core.status, write: (value) => core.writeStatus(value) },
      { at: 0x15, size: 1, read: () => core.generation },
      { at: 0x16, size: 2, read: () => core.queueSelect, write: (value) => (core.queueSelect = value) },
      { at: 0x18, size: 2, read: () => core.queueSize, write: (value) => core.writeQueueSize(value) },
      {
        at: 0x1a,
        size: 2,
        read: () => queue()?.vector ?? NO_VECTOR,
        write: (value) => {
          const selected = queue()
          if (selected) selected.vector = this.#vector(value)
        },
      },
      {
        at: 0x1c,
        size: 2,
        read: () => (queue()?.enabled ? 1 : 0),
        write: (value) => {
          if (value === 1) core.enableQueue()
        },
      },
      { at: 0x1e, size: 2, read: () => (queue() ? core.queueSelect : 0) },
      area(0x20, 0),
      area(0x24, 1),
      area(0x28, 2),
      area(0x2c, 3),
      area(0x30, 4),
      area(0x34, 5),
      // queue_notify_data: VIRTIO_F_NOTIF_CONFIG_DATA is not offered.
      { at: 0x38, size: 2, read: () => 0 },
      // queue_reset: 1 as long as the reset is not over.
      {
        at: 0x3a,
        size: 2,
        read: () => (core.resetting ? 1 : 0),
        write: (value) => {
          if (value === 1) core.resetQueue()
        },
      },
    ]
  }

  #vector(value: number): number {
    return value < this.#vectors ? value : NO_VECTOR
  }

  // PCI configuration access capability

  #readWindow(offset: number, size: IoSize): number {
    if (offset + size <= Cap.data) return -1
    const access = this.#access()
    if (access) {
      const value = this.read(access.offset, access.size)
      for (let byte = 0; byte < access.size; byte++)
        this.#window.setUint8(Cap.data + byte, (value >>> (8 * byte)) & 0xff)
    }
    let value = 0
    for (let byte = 0; byte < size && offset + byte < Cap.size + 4; byte++)
      value |= this.#window.getUint8(offset + byte) << (8 * byte)
    return value >>> 0
  }

  #writeWindow(offset: number, size: IoSize, value: number): void {
    for (let byte = 0; byte < size; byte++) {
      const at = offset + byte
      if (at < this.#window.byteLength) this.#window.setUint8(at, (value >>> (8 * byte)) & 0xff)
    }
    if (offset + size <= Cap.data) return
    const access = this.#access()
    if (!access) return
    const data = this.#window.getUint32(Cap.data, true)
    this.write(access.offset, access.size, access.size === 4 ? data : data & (access.size === 2 ? 0xffff : 0xff))
  }

  /** What the guest asks for, if that is an aligned access inside the BAR. */
  #access(): { offset: number; size: IoSize } | undefined {
    const size = this.#window.getUint32(Cap.structureLength, true)
    const offset = this.#window.getUint32(Cap.offset, true)
    if (size !== 1 && size !== 2 && size !== 4) return undefined
    if (this.#window.getUint8(Cap.bar) !== BAR || offset % size !== 0 || offset + size > BAR_SIZE) return undefined
    return { offset, size }
  }

  // State

  cleared(): void {
    this.#configVector = NO_VECTOR
    this.#takeIsr()
  }

  poweredUp(): void {
    new Uint8Array(this.#window.buffer).fill(0)
  }

  save() {
    return { isr: this.#isr, configVector: this.#configVector, window: new Uint8Array(this.#window.buffer.slice(0)) }
  }

  restore(data: Parameters<TransportLink['restore']>[0]): void {
    this.#isr = data['isr'] as number
    this.#configVector = data['configVector'] as number
    new Uint8Array(this.#window.buffer).set(data['window'] as Uint8Array)
  }
}

interface CommonField {
  readonly at: number
  readonly size: IoSize
  readonly read: () => number
  readonly write?: (value: number) => void
}
