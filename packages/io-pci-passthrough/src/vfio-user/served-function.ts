/**
 * A function of the host as a client of vfio-user finds it: regions and vectors. What vfio-pci is for a real one: the client's configuration space is
 * virtual, the function's messages come here.
 */

import type { Assignment, HostFunction, HostInterrupt, IoSize } from '@nonroot/contracts'
import { Command as PciCommand, Offset, readConfiguration } from '../configuration.ts'
import type { Configuration, HostBar } from '../configuration.ts'
import { CONFIGURATION_SIZE, Irq, Region } from './facts.ts'

/** What serving needs of the host. */
export type ServingHost = Pick<Assignment, 'bus' | 'interrupt'>

const COMMAND_WRITABLE = PciCommand.memory | PciCommand.busMaster | PciCommand.interruptDisable
const BAR_64 = 4
/** High byte of MSI-X's message control: enable, function mask. Low byte of MSI's: enable, multiple message enable. */
const Control = { msix: { at: 3, writable: 0xc0 }, msi: { at: 2, writable: 0x71 } } as const

export class ServedFunction {
  readonly #bus: Assignment['bus']
  readonly #function: HostFunction
  readonly #configuration: Configuration
  readonly #interrupts: readonly HostInterrupt[]
  readonly #bytes = new Uint8Array(CONFIGURATION_SIZE)
  readonly #powerOn: Uint8Array
  readonly #masked: boolean[]
  readonly #pending: boolean[]
  /** Where vectors go. Undefined: no client is connected. */
  onVector: ((vector: number) => void) | undefined

  /** Throws `device.create` for a function without MSI-X and MSI. */
  constructor(host: ServingHost, owned: HostFunction) {
    this.#bus = host.bus
    this.#function = owned
    this.#configuration = readConfiguration(host.bus, owned)
    const { vectors } = this.#configuration
    this.#masked = Array.from({ length: vectors }, () => false)
    this.#pending = Array.from({ length: vectors }, () => false)
    const interrupts: HostInterrupt[] = []
    try {
      for (let vector = 0; vector < vectors; vector++) interrupts.push(host.interrupt(() => this.trigger(vector)))
    } catch (error) {
      for (const interrupt of interrupts) interrupt.free()
      throw error
    }
    this.#interrupts = interrupts
    this.#powerOn = this.#readPowerOn()
    this.#start()
  }

  #readPowerOn(): Uint8Array {
    const bytes = new Uint8Array(CONFIGURATION_SIZE)
    for (let at = 0; at < CONFIGURATION_SIZE; at++) bytes[at] = this.#bus.readMmio(this.#function.configuration + at, 1)
    bytes.fill(0, Offset.command, Offset.command + 2)
    // Where BARs are on the host is not disclosed: their kind alone is left.
    bytes.fill(0, Offset.bar0, Offset.bar0 + 24)
    for (const { number, kind } of this.#bars) bytes[Offset.bar0 + 4 * number] = kind === 'mmio64' ? BAR_64 : 0
    return bytes
  }

  #start(): void {
    this.#bytes.set(this.#powerOn)
    this.#configuration.program(this.#bus, this.#interrupts)
    this.#forward()
  }

  /** Only the client decides whether the function is a bus master. */
  #forward(): void {
    const command = this.#bytes[Offset.command]! & PciCommand.busMaster
    const value = PciCommand.memory | PciCommand.interruptDisable | command
    this.#bus.writeMmio(this.#function.configuration + Offset.command, 2, value)
  }

  get #bars(): readonly HostBar[] {
    const { bars, tableBar } = this.#configuration
    return tableBar ? [...bars, tableBar] : bars
  }

  /** Bytes; 0 for regions that it does not have. */
  regionSize(index: number): number {
    if (index === Region.configuration) return CONFIGURATION_SIZE
    return this.#bars.find(({ number }) => number === index)?.size ?? 0
  }

  /** Vectors of that interrupt type. */
  vectors(index: number): number {
    const { msix, vectors } = this.#configuration
    return index === (msix ? Irq.msix : Irq.msi) ? vectors : 0
  }

  // Registers. The range lies in the region.

  read(index: number, offset: number, length: number): Uint8Array {
    if (index === Region.configuration) return this.#bytes.slice(offset, offset + length)
    const bytes = new Uint8Array(length)
    const bar = this.#configuration.bars.find(({ number }) => number === index)
    // The table is the client's own.
    if (!bar) return bytes
    const view = new DataView(bytes.buffer)
    for (const { at, size } of accesses(offset, length)) {
      const value = this.#bus.readMmio(bar.base + offset + at, size)
      if (size === 4) view.setUint32(at, value, true)
      else if (size === 2) view.setUint16(at, value, true)
      else view.setUint8(at, value)
    }
    return bytes
  }

  write(index: number, offset: number, data: DataView): void {
    if (index === Region.configuration) return this.#configure(offset, data)
    const bar = this.#configuration.bars.find(({ number }) => number === index)
    if (!bar) return
    for (const { at, size } of accesses(offset, data.byteLength)) {
      const value = size === 4 ? data.getUint32(at, true) : size === 2 ? data.getUint16(at, true) : data.getUint8(at)
      this.#bus.writeMmio(bar.base + offset + at, size, value)
    }
  }

  #configure(offset: number, data: DataView): void {
    const { capability, msix } = this.#configuration
    const control = msix ? Control.msix : Control.msi
    const writable = new Map([
      [Offset.command, COMMAND_WRITABLE & 0xff],
      [Offset.command + 1, COMMAND_WRITABLE >> 8],
      [capability + control.at, control.writable],
    ])
    for (let index = 0; index < data.byteLength; index++) {
      const at = offset + index
      const mask = writable.get(at) ?? 0
      this.#bytes[at] = (this.#bytes[at]! & ~mask) | (data.getUint8(index) & mask)
    }
    this.#forward()
  }

  // Vectors

  trigger(vector: number): void {
    if (this.#masked[vector]) this.#pending[vector] = true
    else this.onVector?.(vector)
  }

  mask(vector: number, masked: boolean): void {
    this.#masked[vector] = masked
    if (masked || !this.#pending[vector]) return
    this.#pending[vector] = false
    this.onVector?.(vector)
  }

  // Life

  /** As at power-on. Transfers in progress have ended when it resolves. */
  async reset(): Promise<void> {
    this.#function.reset()
    await this.#function.quiesce()
    this.#function.reset()
    this.#masked.fill(false)
    this.#pending.fill(false)
    this.#start()
  }

  async dispose(): Promise<void> {
    this.onVector = undefined
    await this.#function.quiesce()
    await this.#function.release()
    for (const interrupt of this.#interrupts) interrupt.free()
  }
}

/** The accesses of a bus that make up a range: naturally aligned, of four bytes at most. */
function* accesses(offset: number, length: number): Generator<{ readonly at: number; readonly size: IoSize }> {
  for (let at = 0; at < length;) {
    const size = ([4, 2, 1] as const).find((each) => (offset + at) % each === 0 && at + each <= length)!
    yield { at, size }
    at += size
  }
}
