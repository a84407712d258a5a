/** Virtio over MMIO, version 2: one block of registers and one interrupt line. ("Virtio Over MMIO") */

import type {
  Device,
  DeviceContext,
  InterruptLine,
  IoHandler,
  IoSize,
  VirtioDevice,
  VirtioPort,
} from '@nonroot/contracts'
import { VirtioCore } from './core.ts'
import type { RingOptions, TransportLink } from './core.ts'
import { Cause, VENDOR_ID } from './facts.ts'

/** "MMIO Device Register Layout" */
export const Register = {
  magic: 0x000,
  version: 0x004,
  deviceId: 0x008,
  vendorId: 0x00c,
  deviceFeatures: 0x010,
  deviceFeaturesSelect: 0x014,
  driverFeatures: 0x020,
  driverFeaturesSelect: 0x024,
  queueSelect: 0x030,
  queueSizeMax: 0x034,
  queueSize: 0x038,
  queueReady: 0x044,
  queueNotify: 0x050,
  interruptStatus: 0x060,
  interruptAck: 0x064,
  status: 0x070,
  queueDescriptors: 0x080,
  queueDriver: 0x090,
  queueDevice: 0x0a0,
  sharedMemory: 0x0b0,
  sharedMemoryEnd: 0x0c0,
  queueReset: 0x0c0,
  generation: 0x0fc,
  config: 0x100,
} as const

/** "virt", little-endian. */
const MAGIC = 0x74726976
const VERSION = 2
export const MMIO_SIZE = 0x200
/** Where the words of a queue's three addresses are, in the order of `QueueRegisters.areas`. */
const AREAS: readonly number[] = [0x080, 0x084, 0x090, 0x094, 0x0a0, 0x0a4]

export interface MmioPlace {
  readonly address: number
  readonly core: Device
}

export function attachMmio(
  context: DeviceContext,
  create: (port: VirtioPort) => VirtioDevice,
  options: RingOptions,
  line: InterruptLine,
): MmioPlace {
  let transport: MmioTransport | undefined
  const core = new VirtioCore(context, create, (made) => (transport = new MmioTransport(made, line)), options)
  // Configuration beyond the registers' block makes it larger.
  const length = Math.max(MMIO_SIZE, 2 ** Math.ceil(Math.log2(Register.config + (core.device.config?.length ?? 0))))
  return { address: context.mmio(length, transport!).base, core }
}

class MmioTransport implements TransportLink, IoHandler {
  readonly #core: VirtioCore
  readonly #line: InterruptLine
  #pending = 0

  constructor(core: VirtioCore, line: InterruptLine) {
    this.#core = core
    this.#line = line
  }

  signalQueue(): void {
    this.#signal(Cause.queue)
  }

  signalConfiguration(): void {
    this.#signal(Cause.configuration)
  }

  #signal(cause: number): void {
    this.#pending |= cause
    this.#line.raise()
  }

  #acknowledge(causes: number): void {
    this.#pending &= ~causes
    this.#line.lower()
    // What came meanwhile is a new edge, should the platform count edges.
    if (this.#pending !== 0) this.#line.raise()
  }

  read(offset: number, size: IoSize): number {
    if (offset >= Register.config) return this.#core.readConfig(offset - Register.config, size)
    // "The driver MUST only use 32 bit wide and aligned reads and writes to access the control registers"
    return size === 4 && offset % 4 === 0 ? this.#register(offset) : 0
  }

  #register(offset: number): number {
    const core = this.#core
    switch (offset) {
      case Register.magic:
        return MAGIC
      case Register.version:
        return VERSION
      case Register.deviceId:
        return core.device.deviceId
      case Register.vendorId:
        return VENDOR_ID
      case Register.deviceFeatures:
        return core.deviceFeatures
      case Register.queueSizeMax:
        return core.selected?.most ?? 0
      case Register.queueReady:
        return core.selected?.enabled ? 1 : 0
      case Register.interruptStatus:
        return this.#pending
      case Register.status:
        return core.status
      case Register.queueReset:
        return core.resetting ? 1 : 0
      case Register.generation:
        return core.generation
      default:
        // No shared memory: length and base of a region that does not exist are all ones.
        return offset >= Register.sharedMemory && offset < Register.sharedMemoryEnd ? 0xffff_ffff : 0
    }
  }

  write(offset: number, size: IoSize, value: number): void {
    const core = this.#core
    if (offset >= Register.config) return core.writeConfig(offset - Register.config, size, value)
    if (size !== 4 || offset % 4 !== 0) return
    const area = AREAS.indexOf(offset)
    if (area >= 0) return core.writeQueueArea(area, value)
    switch (offset) {
      case Register.deviceFeaturesSelect:
        core.deviceFeatureSelect = value
        break
      case Register.driverFeatures:
        core.writeDriverFeatures(value)
        break
      case Register.driverFeaturesSelect:
        core.driverFeatureSelect = value
        break
      case Register.queueSelect:
        core.queueSelect = value
        break
      case Register.queueSize:
        core.writeQueueSize(value)
        break
      case Register.queueReady:
        if (value & 1) core.enableQueue()
        else core.disableQueue()
        break
      case Register.queueNotify:
        core.kick(value)
        break
      case Register.interruptAck:
        this.#acknowledge(value)
        break
      case Register.status:
        core.writeStatus(value & 0xff)
        break
      case Register.queueReset:
        if (value & 1) core.resetQueue()
        break
    }
  }

  cleared(): void {
    this.#pending = 0
    this.#line.lower()
  }

  save() {
    return { pending: this.#pending }
  }

  restore(data: Parameters<TransportLink['restore']>[0]): void {
    this.#pending = data['pending'] as number
    if (this.#pending) this.#line.raise()
  }
}
