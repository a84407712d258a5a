/** A virtio driver for tests: does what the specification asks of one, and offers each step by itself for those that do not. */

import type { DeviceDefinition, GuestFrames, GuestMemory, IoModel } from '@nonroot/contracts'
import { check } from '../check.ts'
import { benchDevice } from '../device-bench.ts'
import type { DeviceBench, DeviceBenchOptions } from '../device-bench.ts'
import type { Device } from '@nonroot/contracts'
import { findVirtioRegisters } from './registers.ts'
import type { VirtioRegisters } from './registers.ts'
import { createPackedRing, createSplitRing, ringBytes } from './rings.ts'
import type { DriverElement, DriverRing } from './rings.ts'

export const VirtioStatus = {
  acknowledge: 1,
  driver: 2,
  driverOk: 4,
  featuresOk: 8,
  needsReset: 64,
  failed: 128,
} as const
export const VirtioFeature = {
  indirect: 28,
  eventIndex: 29,
  version1: 32,
  packed: 34,
  inOrder: 35,
  notificationData: 38,
  ringReset: 40,
} as const

export interface DriverOptions {
  /** Features to accept of those offered. Default: all. */
  readonly accept?: (bit: number) => boolean
  /** Entries of each queue. Default: the device's most, up to 64. */
  readonly queueSize?: number
  /** Queues to enable. Default: all. */
  readonly queues?: readonly number[]
}

/** Guest memory from here on is the driver's own. */
const FIRST_ADDRESS = 0x10000

export class MockVirtioDriver {
  readonly registers: VirtioRegisters
  readonly memory: GuestMemory & GuestFrames
  readonly rings: DriverRing[] = []
  #features = new Set<number>()
  #next = FIRST_ADDRESS

  constructor(bench: DeviceBench) {
    this.registers = findVirtioRegisters(bench)
    this.memory = bench.guestMemory
  }

  /** Fresh zeroed guest memory. */
  allocate(length: number, align = 16): number {
    const at = Math.ceil(this.#next / align) * align
    this.#next = at + length
    check(this.memory.isRam(at, length), 'the driver is out of guest memory')
    this.memory.fill(at, length, 0)
    return at
  }

  place(bytes: Uint8Array): number {
    const at = this.allocate(Math.max(bytes.length, 1))
    this.memory.writeBytes(at, bytes)
    return at
  }

  bytes(address: number, length: number): Uint8Array {
    const bytes = new Uint8Array(length)
    check(this.memory.readBytes(address, bytes), 'the driver reads inside guest memory')
    return bytes
  }

  has(feature: number): boolean {
    return this.#features.has(feature)
  }

  offered(): Set<number> {
    const bits = new Set<number>()
    for (let bit = 0; bit < 64; bit++) if (this.registers.deviceFeatures(bit >> 5) & (1 << (bit & 31))) bits.add(bit)
    return bits
  }

  // "Device Initialization", step by step

  reset(): void {
    this.registers.writeStatus(0)
    check(this.registers.status() === 0, 'status is 0 after a reset')
    this.rings.length = 0
    this.#features.clear()
    this.#next = FIRST_ADDRESS
  }

  negotiate(features: Iterable<number>): boolean {
    const { registers } = this
    registers.writeStatus(VirtioStatus.acknowledge)
    registers.writeStatus(VirtioStatus.acknowledge | VirtioStatus.driver)
    this.#features = new Set(features)
    for (const word of [0, 1]) {
      let bits = 0
      for (const bit of this.#features) if (bit >> 5 === word) bits |= 1 << (bit & 31)
      registers.writeDriverFeatures(word, bits >>> 0)
    }
    const wanted = VirtioStatus.acknowledge | VirtioStatus.driver | VirtioStatus.featuresOk
    registers.writeStatus(wanted)
    return (registers.status() & VirtioStatus.featuresOk) !== 0
  }

  /** A ring in fresh memory, as was negotiated; not enabled yet. */
  makeRing(index: number, size: number): DriverRing {
    const at = this.allocate(ringBytes(size), 4096)
    const create = this.has(VirtioFeature.packed) ? createPackedRing : createSplitRing
    const ring = create({ memory: this.memory, at, size, eventIndex: this.has(VirtioFeature.eventIndex) })
    this.rings[index] = ring
    return ring
  }

  enable(index: number, ring: Pick<DriverRing, 'size' | 'areas'>): void {
    const { registers } = this
    registers.selectQueue(index)
    registers.writeQueueSize(ring.size)
    registers.writeQueueAreas(ring.areas)
    registers.enableQueue()
  }

  ready(): void {
    this.registers.writeStatus(this.registers.status() | VirtioStatus.driverOk)
  }

  start({ accept = () => true, queueSize = 64, queues }: DriverOptions = {}): this {
    this.reset()
    check(this.negotiate([...this.offered()].filter(accept)), 'the device accepts a subset of its features')
    for (let index = 0; ; index++) {
      this.registers.selectQueue(index)
      const most = this.registers.queueSize()
      if (most === 0) break
      if (queues && !queues.includes(index)) continue
      this.enable(index, this.makeRing(index, Math.min(most, queueSize)))
      check(this.registers.queueEnabled(), `queue ${index} is enabled`)
    }
    this.ready()
    return this
  }

  get needsReset(): boolean {
    return (this.registers.status() & VirtioStatus.needsReset) !== 0
  }

  // Requests

  ring(index: number): DriverRing {
    const ring = this.rings[index]
    check(ring, `queue ${index} was set up`)
    return ring
  }

  kick(index: number): void {
    const data = this.has(VirtioFeature.notificationData) ? this.ring(index).nextOffset : undefined
    this.registers.notify(index, data)
  }

  /** Make a buffer available, and tell the device if it wants to know. Indirect where that was negotiated and saves entries. */
  send(index: number, elements: readonly DriverElement[]): number {
    const ring = this.ring(index)
    const indirect = this.has(VirtioFeature.indirect) && elements.length > 1
    const id = ring.add(elements, indirect ? this.allocate(16 * elements.length) : undefined)
    if (ring.wantsKick()) this.kick(index)
    return id
  }

  /** One whole exchange: bytes out, room for bytes in, and what came back. Rejects if the device does not answer. */
  async request(index: number, out: readonly Uint8Array[], room: readonly number[] = []): Promise<DriverReply> {
    const readable = out.map((bytes) => ({ address: this.place(bytes), length: bytes.length }))
    const writable = room.map((length) => ({ address: this.allocate(length), length, writable: true }))
    this.ring(index).interruptWhen('always')
    const id = this.send(index, [...readable, ...writable])
    const written = await this.#wait(index, id)
    return { written, parts: writable.map(({ address, length }) => this.bytes(address, length)) }
  }

  readonly #finished = new Map<string, number>()

  async #wait(index: number, id: number): Promise<number> {
    const key = `${index}:${id}`
    for (let turn = 0; turn < 1000; turn++) {
      for (const used of this.ring(index).takeUsed()) this.#finished.set(`${index}:${used.id}`, used.written)
      const written = this.#finished.get(key)
      if (written !== undefined) {
        this.#finished.delete(key)
        return written
      }
      check(!this.needsReset, 'the device needs a reset')
      await new Promise((resolve) => setTimeout(resolve, turn < 10 ? 0 : 1))
    }
    throw new Error(`the device did not use buffer ${id} of queue ${index}`)
  }
}

export interface DriverReply {
  /** Bytes written, as the used ring says. */
  readonly written: number
  readonly parts: readonly Uint8Array[]
}

/** A device on a bench with a transport, and a driver for it. */
export async function benchVirtio(
  definition: DeviceDefinition,
  rawOptions: unknown,
  model: Pick<IoModel, 'offers'>,
  options: DeviceBenchOptions = {},
): Promise<{ device: Device; bench: DeviceBench; driver: MockVirtioDriver }> {
  const { device, bench } = await benchDevice(definition, rawOptions, { ...options, models: [model] })
  return { device, bench, driver: new MockVirtioDriver(bench) }
}
