/** One PCI function: configuration space, BARs, capabilities, its interrupts. Its bus, which places BARs and routes pins, is an interface. */

import { NonrootError, snapshotData } from '@nonroot/contracts'
import type {
  InterruptLine,
  IoHandler,
  IoRegion,
  IoSize,
  MessageInterrupts,
  PciBarDescription,
  PciFunction,
  PciFunctionDescription,
  Snapshot,
  Unpluggable,
} from '@nonroot/contracts'
import { MsixTable } from './msix-table.ts'
import {
  BarBits,
  CapabilityId,
  Command,
  Config,
  CONFIG_SIZE,
  MsiControl,
  MsiOffset,
  MsixControl,
  Status,
} from './registers.ts'

/** What a function asks of its bus. */
export interface PciParent {
  readonly messages: MessageInterrupts
  /** Claim addresses for a BAR, not decoded yet. */
  claim(kind: PciBarDescription['kind'], size: number, handler: IoHandler): IoRegion
  /** Which addresses some function decodes changed. */
  place(): void
  /** The pin's line. */
  pin(device: number, pin: number): InterruptLine
}

/** Registers of a chipset's own function, beyond the header and without capability. */
export interface ChipsetRegister {
  readonly offset: number
  readonly bytes: readonly number[]
  /** Bits that can be written, in each byte. Absent: all. */
  readonly writable?: readonly number[]
}

export interface ChipsetExtras {
  readonly registers: readonly ChipsetRegister[]
  /** After a write below `length` bytes at `offset` by the guest, a reset or a restore. */
  readonly onChange: (configuration: Uint8Array) => void
}

export interface Bar {
  readonly number: number
  readonly kind: PciBarDescription['kind']
  readonly size: number
  readonly region: IoRegion
  /** What is assigned before a guest assigns anything. */
  readonly assigned: number
}

interface PlacedCapability {
  readonly start: number
  readonly end: number
  readonly handler: IoHandler
}

const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const
const PINS = { A: 0, B: 1, C: 2, D: 3 } as const
const TYPE = 'pci-function'

export class PciDeviceFunction implements PciFunction {
  readonly name: string
  readonly requesterId: number
  readonly interrupt: InterruptLine
  readonly bars: readonly Bar[]
  readonly #parent: PciParent
  /** The bus's, with this function as the requester. */
  readonly #messages: MessageInterrupts
  readonly #description: PciFunctionDescription
  readonly #chipset: ChipsetExtras | undefined
  readonly #bytes = new Uint8Array(CONFIG_SIZE)
  readonly #view = new DataView(this.#bytes.buffer)
  readonly #writable = new Uint8Array(CONFIG_SIZE)
  readonly #powerOn: Uint8Array
  readonly #acting: PlacedCapability[] = []
  readonly #msix: MsixTable | undefined
  #msixAt = 0
  #msiAt = 0
  #nextCapability: number = Config.firstCapability
  #lastLink: number = Config.capabilities
  readonly #pin: InterruptLine | undefined
  #pinAsserted = false
  #plugged = true

  constructor(
    parent: PciParent,
    name: string,
    slot: { bus?: number; device: number; function: number },
    description: PciFunctionDescription,
    chipset?: ChipsetExtras,
  ) {
    this.name = name
    this.#parent = parent
    this.#description = description
    this.#chipset = chipset
    this.requesterId = ((slot.bus ?? 0) << 8) | (slot.device << 3) | slot.function
    this.#messages = { send: (address, data) => parent.messages.send(address, data, this.requesterId) }
    this.#header(description)
    for (const { offset, bytes, writable } of chipset?.registers ?? []) {
      this.#bytes.set(bytes, offset)
      bytes.forEach((_, index) => (this.#writable[offset + index] = writable?.[index] ?? 0xff))
    }
    for (const { id, body, writeMask, handler } of description.capabilities ?? []) {
      const start = this.#addCapability(id, body, writeMask)
      if (handler) this.#acting.push({ start, end: start + 2 + body.length, handler })
    }
    if (description.msiVectors) this.#addMsi(description.msiVectors)
    const bars = { ...description.bars }
    if (description.msixVectors) {
      this.#msix = new MsixTable(description.msixVectors, this.#messages)
      const number = this.#freeBar(bars)
      bars[number] = { kind: 'mmio32', size: this.#msix.size, handler: this.#msix }
      this.#addMsix(this.#msix, number)
    }
    this.bars = Object.entries(bars).map(([number, bar]) => this.#addBar(Number(number), bar))
    if (description.interruptPin) {
      const pin = PINS[description.interruptPin]
      this.#bytes[Config.interruptPin] = pin + 1
      this.#writable[Config.interruptLine] = 0xff
      this.#pin = parent.pin(slot.device, pin)
    }
    this.interrupt = {
      raise: () => this.#setPin(true),
      lower: () => this.#setPin(false),
      pulse: () => {
        this.#setPin(true)
        this.#setPin(false)
      },
      onEnd: (listener) => this.#pin?.onEnd?.(listener),
    }
    this.#powerOn = this.#bytes.slice()
  }

  // Construction

  #header(description: PciFunctionDescription): void {
    const view = this.#view
    view.setUint16(Config.vendorId, description.vendorId, true)
    view.setUint16(Config.deviceId, description.deviceId, true)
    view.setUint8(Config.revision, description.revision ?? 0)
    view.setUint8(Config.programmingInterface, description.classCode & 0xff)
    view.setUint8(Config.subclass, (description.classCode >> 8) & 0xff)
    view.setUint8(Config.baseClass, (description.classCode >> 16) & 0xff)
    view.setUint16(Config.subsystemVendorId, description.subsystemVendorId ?? description.vendorId, true)
    view.setUint16(Config.subsystemId, description.subsystemId ?? description.deviceId, true)
    new DataView(this.#writable.buffer).setUint16(Config.command, Command.writable, true)
    this.#writable[Config.cacheLineSize] = this.#writable[Config.latencyTimer] = 0xff
  }

  #addCapability(id: number, body: Uint8Array, writeMask?: Uint8Array): number {
    const start = this.#nextCapability
    const end = start + 2 + body.length
    if (end > CONFIG_SIZE)
      this.#refuse(`its capabilities need more than ${CONFIG_SIZE - Config.firstCapability} bytes`, 'leave one out')
    this.#bytes[start] = id
    this.#bytes.set(body, start + 2)
    if (writeMask) this.#writable.set(writeMask.subarray(0, body.length), start + 2)
    this.#bytes[this.#lastLink] = start
    this.#lastLink = start + 1
    this.#nextCapability = (end + 3) & ~3
    this.#bytes[Config.status]! |= Status.capabilities
    return start
  }

  #addMsi(vectors: number): void {
    const log2 = Math.log2(vectors)
    if (!Number.isInteger(log2) || log2 > 5) this.#refuse(`${vectors} MSI vectors`, 'ask for 1, 2, 4, 8, 16 or 32')
    const body = new Uint8Array(MsiOffset.size - 2)
    const mask = new Uint8Array(body.length)
    new DataView(body.buffer).setUint16(0, MsiControl.address64 | MsiControl.perVectorMask | (log2 << 1), true)
    mask[0] = MsiControl.enable | MsiControl.multipleEnable
    mask.fill(0xff, MsiOffset.addressLow - 2, MsiOffset.data)
    mask[MsiOffset.addressLow - 2] = 0xfc
    mask.fill(0xff, MsiOffset.mask - 2, MsiOffset.pending - 2)
    this.#msiAt = this.#addCapability(CapabilityId.msi, body, mask)
  }

  #addMsix(table: MsixTable, bar: number): void {
    if (table.vectors > 2048) this.#refuse(`${table.vectors} MSI-X vectors`, 'ask for 2048 at most')
    const body = new Uint8Array(10)
    const view = new DataView(body.buffer)
    view.setUint16(0, table.vectors - 1, true)
    view.setUint32(2, bar, true)
    view.setUint32(6, table.pendingOffset | bar, true)
    const mask = new Uint8Array(10)
    mask[1] = (MsixControl.enable | MsixControl.functionMask) >> 8
    this.#msixAt = this.#addCapability(CapabilityId.msix, body, mask)
  }

  #freeBar(bars: NonNullable<PciFunctionDescription['bars']>): 0 | 1 | 2 | 3 | 4 | 5 {
    for (const number of [1, 0, 2, 3, 4, 5] as const) {
      const below = number > 0 ? bars[(number - 1) as 0] : undefined
      if (!bars[number] && below?.kind !== 'mmio64') return number
    }
    return this.#refuse('its BARs leave none for the MSI-X table', 'free one')
  }

  #addBar(number: number, description: PciBarDescription): Bar {
    const { kind, size, handler } = description
    const smallest = kind === 'io' ? 4 : 16
    if (size < smallest || !Number.isInteger(Math.log2(size)))
      this.#refuse(`BAR ${number} has ${size} bytes`, `give it a power of two from ${smallest}`)
    if (number > 5 || (kind === 'mmio64' && number > 4))
      this.#refuse(`there is no room for BAR ${number}`, 'use BARs 0 to 5, two for 64 bits')
    const claimed = this.#parent.claim(kind, size, handler)
    const onPlaced = description.kind === 'io' ? undefined : description.onPlaced
    const region = onPlaced ? reportPlaces(claimed, onPlaced) : claimed
    const at = Config.bar0 + number * 4
    let low = region.base % 2 ** 32
    if (kind === 'io') low |= BarBits.io
    if (kind === 'mmio64') low |= BarBits.memory64
    if (kind !== 'io' && description.prefetchable) low |= BarBits.prefetchable
    this.#view.setUint32(at, low >>> 0, true)
    const writable = new DataView(this.#writable.buffer)
    writable.setUint32(at, -Math.min(size, 2 ** 31) >>> 0, true)
    if (kind === 'mmio64') {
      this.#view.setUint32(at + 4, Math.floor(region.base / 2 ** 32), true)
      writable.setUint32(at + 4, 0xffff_ffff, true)
    }
    return { number, kind, size, region, assigned: region.base }
  }

  #refuse(message: string, remedy: string): never {
    throw new NonrootError({
      code: 'device.create',
      message: `PCI function of ${this.name}: ${message}`,
      thing: this.name,
      remedy,
    })
  }

  // BARs

  /** Where a BAR says it is, or undefined while its kind is not decoded. */
  decoded(bar: Bar): number | undefined {
    const needed = bar.kind === 'io' ? Command.io : Command.memory
    if (!(this.#view.getUint16(Config.command, true) & needed)) return undefined
    const at = Config.bar0 + bar.number * 4
    const low = this.#view.getUint32(at, true)
    if (bar.kind === 'io') return (low & ~3) >>> 0
    return ((low & ~15) >>> 0) + (bar.kind === 'mmio64' ? this.#view.getUint32(at + 4, true) * 2 ** 32 : 0)
  }

  bar(number: number): IoRegion | undefined {
    return this.bars.find((bar) => bar.number === number)?.region
  }

  // The guest's accesses

  guestRead(offset: number, size: IoSize): number {
    if (!this.#plugged) return ALL_ONES[size]
    if (offset + size > CONFIG_SIZE) return 0
    for (const { start, end, handler } of this.#acting) {
      if (offset < start + 2 || offset >= end) continue
      const value = handler.read(offset - start, size)
      if (value >= 0) return value
    }
    return this.configRead(offset, size)
  }

  guestWrite(offset: number, size: IoSize, value: number): void {
    if (!this.#plugged || offset + size > CONFIG_SIZE) return
    const command = this.#view.getUint16(Config.command, true)
    for (let byte = 0; byte < size; byte++) {
      const at = offset + byte
      const writable = this.#writable[at]!
      this.#bytes[at] = (this.#bytes[at]! & ~writable) | ((value >>> (8 * byte)) & writable)
    }
    for (const { start, end, handler } of this.#acting) {
      if (offset >= start + 2 && offset < end) handler.write(offset - start, size, value)
    }
    const barsTouched = offset < Config.bar0 + 24 && offset + size > Config.bar0
    this.#changed(barsTouched || command !== this.#view.getUint16(Config.command, true))
    const now = this.#view.getUint16(Config.command, true)
    if (now !== command) this.#description.onCommand?.(now)
  }

  /** Follow what configuration space says now. */
  #changed(place: boolean): void {
    if (this.#msix) {
      const control = this.#view.getUint16(this.#msixAt + 2, true)
      // A message is a memory write: without Bus Master Enable it waits, as if masked.
      const isMasked = (control & MsixControl.functionMask) !== 0 || !this.busMaster
      this.#msix.control((control & MsixControl.enable) !== 0, isMasked)
    }
    if (this.#msiAt) this.#releaseMsi()
    if (place) this.#parent.place()
    this.#updatePin()
    this.#chipset?.onChange(this.#bytes)
  }

  configRead(offset: number, size: IoSize): number {
    let value = 0
    for (let byte = 0; byte < size; byte++) value |= (this.#bytes[offset + byte] ?? 0) << (8 * byte)
    return value >>> 0
  }

  configWrite(offset: number, size: IoSize, value: number): void {
    for (let byte = 0; byte < size; byte++) this.#bytes[offset + byte] = (value >>> (8 * byte)) & 0xff
  }

  /** A value that a reset keeps, too. */
  setFixed(offset: number, value: number): void {
    this.#bytes[offset] = this.#powerOn[offset] = value
  }

  // Interrupts

  /** MSI-X or MSI is on: the device uses `signal`. */
  get msixEnabled(): boolean {
    return this.#msix?.enabled === true || this.#msiEnabled()
  }

  get busMaster(): boolean {
    return (this.#bytes[Config.command]! & Command.busMaster) !== 0
  }

  signal(vector: number): void {
    if (this.#msix?.enabled) this.#msix.signal(vector)
    else if (this.#msiEnabled()) this.#signalMsi(vector)
  }

  #msiEnabled(): boolean {
    return this.#msiAt !== 0 && (this.#bytes[this.#msiAt + MsiOffset.control]! & MsiControl.enable) !== 0
  }

  #signalMsi(vector: number): void {
    const at = this.#msiAt
    const view = this.#view
    const granted = 1 << ((this.#bytes[at + MsiOffset.control]! & MsiControl.multipleEnable) >> 4)
    const number = vector % granted
    if (!this.busMaster || view.getUint32(at + MsiOffset.mask, true) & (1 << number)) {
      view.setUint32(at + MsiOffset.pending, view.getUint32(at + MsiOffset.pending, true) | (1 << number), true)
      return
    }
    const address =
      view.getUint32(at + MsiOffset.addressLow, true) + view.getUint32(at + MsiOffset.addressHigh, true) * 2 ** 32
    this.#messages.send(address, (view.getUint16(at + MsiOffset.data, true) & ~(granted - 1)) | number)
  }

  #releaseMsi(): void {
    if (!this.#msiEnabled() || !this.busMaster) return
    const at = this.#msiAt
    const ready = this.#view.getUint32(at + MsiOffset.pending, true) & ~this.#view.getUint32(at + MsiOffset.mask, true)
    for (let number = 0; number < 32; number++) {
      if (!(ready & (1 << number))) continue
      this.#view.setUint32(
        at + MsiOffset.pending,
        this.#view.getUint32(at + MsiOffset.pending, true) & ~(1 << number),
        true,
      )
      this.#signalMsi(number)
    }
  }

  #setPin(asserted: boolean): void {
    if (this.#pinAsserted === asserted) return
    this.#pinAsserted = asserted
    if (asserted) this.#bytes[Config.status]! |= Status.interrupt
    else this.#bytes[Config.status]! &= ~Status.interrupt
    this.#updatePin()
  }

  #updatePin(): void {
    if (!this.#plugged) return this.#pin?.lower()
    const disabled = this.#view.getUint16(Config.command, true) & Command.interruptDisable || this.msixEnabled
    if (this.#pinAsserted && !disabled) this.#pin?.raise()
    else this.#pin?.lower()
  }

  // All of it

  reset(): void {
    this.#plug(true)
    this.#bytes.set(this.#powerOn)
    this.#pinAsserted = false
    this.#msix?.reset()
    this.#changed(true)
  }

  /** Takes it off the bus until reset: no configuration space, BARs or interrupts. False: it is of another kind, or unplugged already. */
  unplug(kind: Unpluggable): boolean {
    if (this.#description.unpluggable !== kind || !this.#plugged) return false
    this.reset()
    this.#plug(false)
    return true
  }

  #plug(on: boolean): void {
    if (this.#plugged === on) return
    this.#plugged = on
    this.#description.onPlugged?.(on)
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: {
        bytes: this.#bytes.slice(),
        table: Array.from(this.#msix?.words ?? []),
        pending: Array.from(this.#msix?.pending ?? []),
        pinAsserted: this.#pinAsserted,
        plugged: this.#plugged,
      },
    }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    this.#bytes.set(data['bytes'] as Uint8Array)
    this.#msix?.words.set(data['table'] as number[])
    this.#msix?.pending.set(data['pending'] as number[])
    this.#pinAsserted = data['pinAsserted'] as boolean
    this.#plug(data['plugged'] !== false)
    this.#changed(true)
  }
}

/** The region, which also reports where it answers. */
function reportPlaces(region: IoRegion, onPlaced: (address: number | undefined) => void): IoRegion {
  return {
    get base() {
      return region.base
    },
    length: region.length,
    get enabled() {
      return region.enabled
    },
    move: (base) => {
      if (region.enabled) onPlaced(base)
      region.move(base)
    },
    enable: () => {
      if (!region.enabled) onPlaced(region.base)
      region.enable()
    },
    disable: () => {
      if (region.enabled) onPlaced(undefined)
      region.disable()
    },
  }
}
