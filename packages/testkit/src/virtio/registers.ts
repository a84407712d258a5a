/** A virtio transport's registers as a driver sees them, found as a driver finds them. PCI and MMIO look the same from here. */

import type { IoSize } from '@nonroot/contracts'
import { check } from '../check.ts'
import type { DeviceBench } from '../device-bench.ts'

export interface VirtioRegisters {
  readonly transport: 'pci' | 'mmio'
  readonly deviceId: number
  status(): number
  writeStatus(value: number): void
  /** 32 bits of features: word 0 has bits 0 to 31. */
  deviceFeatures(word: number): number
  writeDriverFeatures(word: number, value: number): void
  driverFeatures?(word: number): number
  selectQueue(index: number): void
  /** Of the selected queue: the most entries, 0 where there is no such queue. */
  queueSize(): number
  writeQueueSize(size: number): void
  writeQueueAreas(areas: { descriptors: number; driver: number; device: number }): void
  enableQueue(): void
  queueEnabled(): boolean
  resetQueue(): void
  /** The reset of the selected queue is not over. */
  queueResetting(): boolean
  notify(index: number, offset?: number): void
  readConfig(offset: number, size: IoSize): number
  writeConfig(offset: number, size: IoSize, value: number): void
  generation(): number
  /** Used buffer notifications that arrived for a queue so far, and of configuration changes. */
  queueInterrupts(index: number): number
  configInterrupts(): number
}

/** Registers of the bench's `index`-th virtio device, whichever transport it has. */
export function findVirtioRegisters(bench: DeviceBench): VirtioRegisters {
  return bench.functions.length > 0 ? pciRegisters(bench) : mmioRegisters(bench)
}

const low = (address: number): number => address % 2 ** 32
const high = (address: number): number => Math.floor(address / 2 ** 32)

function pciRegisters(bench: DeviceBench): VirtioRegisters {
  const found = bench.functions[0]!
  const { description, signals } = found
  check(description.vendorId === 0x1af4, 'a virtio function has vendor 0x1AF4')
  const bars = Object.keys(description.bars ?? {})
  const place = (type: number): { at: number; extra: number } => {
    const capability = description.capabilities?.find(({ id, body }) => id === 9 && body[1] === type)
    if (!capability) return { at: -1, extra: 0 }
    const view = new DataView(capability.body.buffer, capability.body.byteOffset, capability.body.length)
    const region = bench.mmio[bars.indexOf(String(view.getUint8(2)))]
    check(region, 'a capability names a BAR that is there')
    return { at: region.base + view.getUint32(6, true), extra: view.byteLength >= 18 ? view.getUint32(14, true) : 0 }
  }
  const common = place(1).at
  const notify = place(2)
  const config = place(4).at
  const read = (offset: number, size: IoSize): number => bench.readMmio(common + offset, size)
  const write = (offset: number, size: IoSize, value: number): void => bench.writeMmio(common + offset, value, size)
  const count = description.msixVectors ?? 0
  // Vector 0 is the configuration's, each queue has the next.
  const vector = (index: number): number => Math.min(index + 1, count - 1)
  return {
    transport: 'pci',
    deviceId: description.deviceId - 0x1040,
    status: () => read(0x14, 1),
    writeStatus(value) {
      write(0x14, 1, value)
      if (value === 2 || value === 3) write(0x10, 2, 0)
    },
    deviceFeatures(word) {
      write(0, 4, word)
      return read(4, 4)
    },
    writeDriverFeatures(word, value) {
      write(8, 4, word)
      write(12, 4, value)
    },
    driverFeatures(word) {
      write(8, 4, word)
      return read(12, 4)
    },
    selectQueue: (index) => write(0x16, 2, index),
    queueSize: () => read(0x18, 2),
    writeQueueSize: (size) => write(0x18, 2, size),
    writeQueueAreas({ descriptors, driver, device }) {
      ;[descriptors, driver, device].forEach((address, index) => {
        write(0x20 + 8 * index, 4, low(address))
        write(0x24 + 8 * index, 4, high(address))
      })
    },
    enableQueue() {
      write(0x1a, 2, vector(read(0x16, 2)))
      write(0x1c, 2, 1)
    },
    queueEnabled: () => read(0x1c, 2) === 1,
    resetQueue: () => write(0x3a, 2, 1),
    queueResetting: () => read(0x3a, 2) === 1,
    notify(index, offset) {
      write(0x16, 2, index)
      const at = notify.at + read(0x1e, 2) * notify.extra
      if (offset === undefined) bench.writeMmio(at, index, 2)
      else bench.writeMmio(at, index + offset * 2 ** 16, 4)
    },
    readConfig: (offset, size) => bench.readMmio(config + offset, size),
    writeConfig: (offset, size, value) => bench.writeMmio(config + offset, value, size),
    generation: () => read(0x15, 1),
    queueInterrupts: (index) => signals.filter((signal) => signal === vector(index)).length,
    configInterrupts: () => signals.filter((signal) => signal === 0).length,
  }
}

/** Lines that a virtio-mmio device may be on: the one that it takes first is counted. */
const LINES = Array.from({ length: 24 }, (_, line) => line)

function mmioRegisters(bench: DeviceBench): VirtioRegisters {
  const region = bench.mmio[0]
  check(region, 'a virtio-mmio device claims its registers')
  const read = (offset: number): number => bench.readMmio(region.base + offset, 4)
  const write = (offset: number, value: number): void => bench.writeMmio(region.base + offset, value, 4)
  check(read(0) === 0x74726976 && read(4) === 2, 'magic and version of virtio-mmio')
  let queues = 0
  let configs = 0
  /** The work of an interrupt handler, on demand. */
  const take = (): void => {
    if (!LINES.some((line) => bench.line(line).raised)) return
    const causes = read(0x60)
    if (causes & 1) queues++
    if (causes & 2) configs++
    write(0x64, causes)
  }
  return {
    transport: 'mmio',
    deviceId: read(8),
    status: () => read(0x70),
    writeStatus: (value) => write(0x70, value),
    deviceFeatures(word) {
      write(0x14, word)
      return read(0x10)
    },
    writeDriverFeatures(word, value) {
      write(0x24, word)
      write(0x20, value)
    },
    selectQueue: (index) => write(0x30, index),
    queueSize: () => read(0x34),
    writeQueueSize: (size) => write(0x38, size),
    writeQueueAreas({ descriptors, driver, device }) {
      ;[descriptors, driver, device].forEach((address, index) => {
        write(0x80 + 16 * index, low(address))
        write(0x84 + 16 * index, high(address))
      })
    },
    enableQueue: () => write(0x44, 1),
    queueEnabled: () => read(0x44) === 1,
    resetQueue: () => write(0xc0, 1),
    queueResetting: () => read(0xc0) === 1,
    notify: (index, offset = 0) => write(0x50, index + offset * 2 ** 16),
    readConfig: (offset, size) => bench.readMmio(region.base + 0x100 + offset, size),
    writeConfig: (offset, size, value) => bench.writeMmio(region.base + 0x100 + offset, value, size),
    generation: () => read(0xfc),
    queueInterrupts() {
      take()
      return queues
    },
    configInterrupts() {
      take()
      return configs
    },
  }
}
