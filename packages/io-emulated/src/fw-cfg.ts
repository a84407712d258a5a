/** fw_cfg: data for firmware, by key and by file. The directory is the only content of its own. (QEMU, "fw_cfg Device Specification") */

import type {
  Device,
  DeviceContext,
  DmaMemory,
  FirmwareConfiguration,
  FirmwareItem,
  IoHandler,
  IoSize,
  MemoryMap,
  Snapshot,
} from '@nonroot/contracts'
import { assignState, restoreState, saveState } from './state.ts'

const PORT = 0x510
const Offset = { selector: 0, data: 1, dmaHigh: 4, dmaLow: 8, length: 12 } as const

export const FwCfgKey = {
  signature: 0x00,
  id: 0x01,
  ramSize: 0x03,
  cpus: 0x05,
  bootMenu: 0x0e,
  maxCpus: 0x0f,
  directory: 0x19,
  firstFile: 0x20,
  irq0Override: 0x8002,
} as const
/** Bit 14 of a selector once allowed writing by port; it is no part of the key. */
const KEY_MASK = 0xbfff
/** The port interface, and DMA. */
const ID_FEATURES = 3
const Dma = { error: 1, read: 2, skip: 4, select: 8, write: 0x10 } as const
const DMA_SIGNATURE = [0x554d_4551, 0x4746_4320] as const // "QEMU CFG"
const LONGEST_NAME = 55
/** Bytes moved at a time, so that a guest's length allocates nothing of its size. */
const CHUNK = 4096

const EMPTY = new Uint8Array(0)
const ascii = (text: string): Uint8Array => new TextEncoder().encode(text)

const powerOn = () => ({ selected: 0, offset: 0, dmaHigh: 0 })
const TYPE = 'fw-cfg'

export class FwCfg implements Device, IoHandler, FirmwareConfiguration {
  readonly #state = powerOn()
  readonly #items = new Map<number, FirmwareItem>()
  readonly #files = new Map<string, FirmwareItem>()
  /** Of the item that is selected. */
  #content: Uint8Array = EMPTY
  readonly #dma: DmaMemory

  constructor(context: Pick<DeviceContext, 'portIo' | 'dma'>) {
    this.#dma = context.dma
    this.#items.set(FwCfgKey.signature, ascii('QEMU'))
    this.#items.set(FwCfgKey.id, Uint8Array.of(ID_FEATURES, 0, 0, 0))
    this.#fetch()
    context.portIo(PORT, Offset.length, this)
  }

  addItem(key: number, content: FirmwareItem): void {
    this.#items.set(key, content)
  }

  addFile(name: string, content: FirmwareItem): void {
    this.#files.set(name.slice(0, LONGEST_NAME), content)
    // Keys by order of name: the same files have the same keys, in whatever order they were added.
    const names = [...this.#files.keys()].sort()
    const directory = new Uint8Array(4 + names.length * 64)
    const view = new DataView(directory.buffer)
    view.setUint32(0, names.length)
    names.forEach((file, index) => {
      const at = 4 + index * 64
      const item = this.#files.get(file)!
      view.setUint32(at, bytesOf(item).length)
      view.setUint16(at + 4, FwCfgKey.firstFile + index)
      directory.set(ascii(file), at + 8)
      this.#items.set(FwCfgKey.firstFile + index, item)
    })
    this.#items.set(FwCfgKey.directory, directory)
  }

  read(offset: number, size: IoSize): number {
    if (offset === Offset.data && size === 1) return this.#next()
    if (size === 4 && offset === Offset.dmaHigh) return DMA_SIGNATURE[0]
    if (size === 4 && offset === Offset.dmaLow) return DMA_SIGNATURE[1]
    return 0
  }

  write(offset: number, size: IoSize, value: number): void {
    if (offset === Offset.selector && size === 2) this.#select(value)
    else if (offset === Offset.dmaHigh && size === 4) this.#state.dmaHigh = swap(value)
    else if (offset === Offset.dmaLow && size === 4) {
      const descriptor = this.#state.dmaHigh * 2 ** 32 + swap(value)
      this.#state.dmaHigh = 0
      this.#transfer(descriptor)
    }
  }

  #select(key: number): void {
    this.#state.selected = key & KEY_MASK
    this.#state.offset = 0
    this.#fetch()
  }

  #fetch(): void {
    this.#content = bytesOf(this.#items.get(this.#state.selected) ?? EMPTY)
  }

  /** The item's bytes, then zeros. */
  #next(): number {
    return this.#content[this.#state.offset++] ?? 0
  }

  #transfer(descriptor: number): void {
    const memory = this.#dma
    const bytes = new Uint8Array(16)
    if (!memory.readBytes(descriptor, bytes)) return
    const view = new DataView(bytes.buffer)
    const control = view.getUint32(0)
    const length = view.getUint32(4)
    const address = view.getUint32(8) * 2 ** 32 + view.getUint32(12)
    if (control & Dma.select) this.#select(control >>> 16)
    let done = true
    if (control & Dma.read) done = this.#copy(address, length)
    else if (control & Dma.write)
      done = false // nothing here is the guest's to change
    else if (control & Dma.skip) this.#state.offset += length
    view.setUint32(0, done ? 0 : Dma.error)
    memory.writeBytes(descriptor, bytes.subarray(0, 4))
  }

  #copy(address: number, length: number): boolean {
    if (!this.#dma.isRam(address, length)) return false
    const item = this.#content
    const { offset } = this.#state
    for (let done = 0; done < length && offset + done < item.length; done += CHUNK) {
      const end = Math.min(offset + done + CHUNK, offset + length, item.length)
      this.#dma.writeBytes(address + done, item.subarray(offset + done, end))
    }
    const copied = Math.max(0, Math.min(length, item.length - offset))
    this.#dma.fill(address + copied, length - copied, 0)
    this.#state.offset += length
    return true
  }

  reset(): void {
    assignState(this.#state, powerOn())
    this.#fetch()
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#fetch()
  }
}

const bytesOf = (item: FirmwareItem): Uint8Array => (item instanceof Uint8Array ? item : item())

/** The DMA address register is big-endian. */
const swap = (value: number): number =>
  (((value & 0xff) << 24) | ((value & 0xff00) << 8) | ((value >>> 8) & 0xff00) | (value >>> 24)) >>> 0

/** `etc/e820`: 20 bytes each of address, length and type 1 (RAM). */
export function e820File(regions: MemoryMap['regions']): Uint8Array {
  const ram = regions.filter(({ kind }) => kind === 'ram')
  const view = new DataView(new ArrayBuffer(ram.length * 20))
  ram.forEach(({ start, length }, index) => {
    view.setBigUint64(index * 20, BigInt(start), true)
    view.setBigUint64(index * 20 + 8, BigInt(length), true)
    view.setUint32(index * 20 + 16, 1, true)
  })
  return new Uint8Array(view.buffer)
}
