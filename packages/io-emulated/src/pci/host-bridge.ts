/**
 * PCI host bridge as in Q35 and ICH9: configuration by ports and ECAM, BAR placement, pins. Independent of device types.
 * (Intel 3 Series Express Chipset datasheet; ICH9 datasheet, "LPC Interface Bridge Registers")
 */

import { gpa, NonrootError, snapshotData } from '@nonroot/contracts'
import type {
  Device,
  DeviceContext,
  InterruptLine,
  IoHandler,
  IoRegion,
  IoSize,
  PciBarDescription,
  PciBus,
  PciFunction,
  PciFunctionDescription,
  PciUnplug,
  PlatformDescription,
  Snapshot,
  Unpluggable,
} from '@nonroot/contracts'
import type { PcInterruptController } from '../apic/interrupt-controller.ts'
import { PCI_INTX, PCI_IO_WINDOW, Place } from '../pc-addresses.ts'
import type { ResetControl } from '../reset-control.ts'
import { PciDeviceFunction } from './function.ts'
import type { Bar, PciParent } from './function.ts'
import { PIRQ_OFF, PirqRouter } from './pirq-router.ts'
import { Config, EXTENDED_CONFIG_SIZE, MULTI_FUNCTION } from './registers.ts'

const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const
const ENABLE_CONFIG = 0x8000_0000
const RESET_OFFSET = Place.resetControl - 0xcf8
const DEVICES = 32
const HOST_DEVICE = 0
const LPC_DEVICE = 31

/** Where BARs may be: below the I/O APIC, and above 4 GiB. */
const MEMORY_START = Place.pciWindow
const MEMORY_END = Place.ioApic
const MEMORY64_START = 2 ** 32
const MEMORY64_END = 2 ** 52
/** BARs get their ports from here, as ports below are often probed for ISA devices. */
const IO_FIRST = 0xc000

/** QEMU's, by which SeaBIOS knows that the chipset is a virtual one. */
const SUBSYSTEM = { subsystemVendorId: 0x1af4, subsystemId: 0x1100 } as const
const Host = { pciExpressBar: 0x60, pam: 0x90, smram: 0x9d } as const
/** PAM0 says it for the BIOS area, the others for two segments each. (Q35 datasheet, "PAM0: Programmable Attribute Map 0") */
const PAM_RESET = [0, 0, 0, 0, 0, 0, 0]
const PAM_WRITABLE = [0x30, 0x33, 0x33, 0x33, 0x33, 0x33, 0x33]
const Lpc = { pmBase: 0x40, acpiControl: 0x44, pirqA: 0x60, pirqE: 0x68 } as const
/** PIRQA to PIRQH. */
const PIRQ_REGISTERS = [0x60, 0x61, 0x62, 0x63, 0x68, 0x69, 0x6a, 0x6b] as const
/** ISA IRQs that no device of this PC has. */
const PIRQ_IRQS = [5, 10, 11] as const
const ACPI_ENABLE = 0x80

export interface PciHostOptions {
  readonly interrupts: PcInterruptController
  readonly reset: ResetControl
  /** The ACPI registers' ports, which the LPC bridge's PMBASE moves. */
  readonly acpi: IoRegion
}

const TYPE = 'pci-host'

export class PciHost implements Device, PciBus, PciUnplug, PciParent {
  readonly messages
  readonly #context: DeviceContext
  readonly #reset: ResetControl
  readonly #functions = new Map<number, PciDeviceFunction>()
  readonly #ecam: IoRegion
  readonly #acpi: IoRegion
  readonly #pirqs: PirqRouter
  #address = 0
  #nextMemory: number = Place.pciWindow
  #nextPort = IO_FIRST
  #placing = false

  constructor(context: DeviceContext, options: PciHostOptions) {
    this.#context = context
    this.#pirqs = new PirqRouter(options.interrupts)
    this.#reset = options.reset
    this.#acpi = options.acpi
    this.messages = context.messageInterrupts
    const ports: IoHandler = {
      read: (offset, size) => this.#readPort(offset, size),
      write: (offset, size, value) => this.#writePort(offset, size, value),
    }
    context.portIo(0xcf8, 8, ports)
    const ecam: IoHandler = {
      read: (offset, size) => this.#read(offset >>> 20, (offset >> 12) & 0xff, offset % EXTENDED_CONFIG_SIZE, size),
      write: (offset, size, value) =>
        this.#write(offset >>> 20, (offset >> 12) & 0xff, offset % EXTENDED_CONFIG_SIZE, size, value),
    }
    this.#ecam = context.mmio({ at: Place.ecam, length: Place.ecamLength }, ecam)
    this.#addChipset()
  }

  #addChipset(): void {
    const ecam = Place.ecam / 2 ** 24
    this.#put(
      new PciDeviceFunction(
        this,
        'host-bridge',
        { device: HOST_DEVICE, function: 0 },
        { vendorId: 0x8086, deviceId: 0x29c0, classCode: 0x060000, ...SUBSYSTEM },
        {
          registers: [
            {
              offset: Host.pciExpressBar,
              bytes: [1, 0, 0, ecam, 0, 0, 0, 0],
              writable: [0x07, 0, 0, 0xfe, 0x0f, 0, 0, 0],
            },
            // The memory at 0xC0000 to 0xFFFFF is RAM here whatever these say. Firmware finds them as after a reset, and copies itself
            // there: of an image over 128 KiB only the end is there before.
            { offset: Host.pam, bytes: PAM_RESET, writable: PAM_WRITABLE },
            { offset: Host.smram, bytes: [0x02, 0x38] },
          ],
          onChange: (bytes) => this.#moveEcam(bytes),
        },
      ),
    )
    const pirqs = [PIRQ_OFF, PIRQ_OFF, PIRQ_OFF, PIRQ_OFF]
    this.#put(
      new PciDeviceFunction(
        this,
        'lpc-bridge',
        { device: LPC_DEVICE, function: 0 },
        { vendorId: 0x8086, deviceId: 0x2918, revision: 2, classCode: 0x060100, ...SUBSYSTEM },
        {
          registers: [
            { offset: Lpc.pmBase, bytes: [1, Place.acpiBlock >> 8, 0, 0], writable: [0x80, 0xff, 0, 0] },
            { offset: Lpc.acpiControl, bytes: [ACPI_ENABLE], writable: [0x87] },
            { offset: Lpc.pirqA, bytes: pirqs, writable: [0x8f, 0x8f, 0x8f, 0x8f] },
            { offset: Lpc.pirqE, bytes: pirqs, writable: [0x8f, 0x8f, 0x8f, 0x8f] },
          ],
          onChange: (bytes) => {
            this.#moveAcpi(bytes)
            PIRQ_REGISTERS.forEach((register, pirq) => this.#pirqs.route(pirq, bytes[register]!))
          },
        },
      ),
    )
  }

  // Chipset registers

  #moveEcam(bytes: Uint8Array): void {
    const base = bytes[Host.pciExpressBar + 3]! * 2 ** 24 + bytes[Host.pciExpressBar + 4]! * 2 ** 32
    const on = (bytes[Host.pciExpressBar]! & 1) !== 0
    // 256 MiB for 256 buses, of 32 GiB at most, where no RAM is: anything else would hide what is there.
    const allowed =
      base % Place.ecamLength === 0 &&
      base >= 2 ** 20 &&
      (base + Place.ecamLength <= MEMORY_END || base >= MEMORY64_START)
    const wanted = on && allowed && !this.#touchesRam(base, Place.ecamLength)
    if (this.#ecam.enabled && (!wanted || this.#ecam.base !== base)) this.#ecam.disable()
    if (wanted && !this.#ecam.enabled) {
      for (const { bars } of this.#functions.values()) {
        for (const { region, kind } of bars) {
          if (kind !== 'io' && region.enabled && overlaps(region.base, region.length, base, Place.ecamLength))
            region.disable()
        }
      }
      this.#ecam.move(base)
      this.#ecam.enable()
    }
    this.place()
  }

  #moveAcpi(bytes: Uint8Array): void {
    const base = (bytes[Lpc.pmBase + 1]! << 8) | (bytes[Lpc.pmBase]! & 0x80)
    const on = (bytes[Lpc.acpiControl]! & ACPI_ENABLE) !== 0 && ACPI_BASES.has(base)
    if (this.#acpi.enabled && (!on || this.#acpi.base !== base)) this.#acpi.disable()
    if (on && !this.#acpi.enabled) {
      this.#acpi.move(base)
      this.#acpi.enable()
    }
  }

  /** As it is now: firmware moves ECAM, and the window for BARs with it. */
  describe(): NonNullable<PlatformDescription['pci']> {
    const { base: ecam, enabled } = this.#ecam
    const ecamEnd = ecam + Place.ecamLength
    const inside = enabled && ecam < MEMORY_END && ecamEnd > MEMORY_START
    const start = inside && ecam === MEMORY_START ? ecamEnd : MEMORY_START
    const end = inside && ecam !== MEMORY_START ? ecam : MEMORY_END
    return {
      ...(enabled ? { ecam: { address: gpa(ecam), startBus: 0, endBus: 0xff } } : {}),
      windows: [
        { kind: 'io', ...PCI_IO_WINDOW },
        { kind: 'mmio', base: start, length: end - start },
      ],
      intx: PCI_INTX,
      picRouting: { device: LPC_DEVICE, function: 0, registers: PIRQ_REGISTERS, irqs: PIRQ_IRQS },
    }
  }

  pin(device: number, pin: number): InterruptLine {
    return this.#pirqs.pin((device + pin) % PCI_INTX.length)
  }

  // Functions

  add(name: string, description: PciFunctionDescription): PciFunction {
    const slot = description.at ?? { device: this.#freeDevice(name), function: 0 }
    const fits = slot.device >= 0 && slot.device < DEVICES && slot.function >= 0 && slot.function < 8
    const place = `00:${slot.device.toString(16).padStart(2, '0')}.${slot.function}`
    const other = this.#functions.get((slot.device << 3) | slot.function)
    if (!fits || other) {
      throw new NonrootError({
        code: 'device.create',
        message: other
          ? `${name} and ${other.name} both want PCI function ${place}`
          : `there is no PCI function ${place}`,
        thing: name,
        value: place,
        remedy: 'give one of them another place, or none for a free one',
      })
    }
    return this.#put(new PciDeviceFunction(this, name, slot, description))
  }

  #put(pciFunction: PciDeviceFunction): PciDeviceFunction {
    this.#functions.set(pciFunction.requesterId, pciFunction)
    if (pciFunction.requesterId & 7)
      this.#functions.get(pciFunction.requesterId & ~7)?.setFixed(Config.headerType, MULTI_FUNCTION)
    else if ([1, 2, 3, 4, 5, 6, 7].some((number) => this.#functions.has(pciFunction.requesterId | number))) {
      pciFunction.setFixed(Config.headerType, MULTI_FUNCTION)
    }
    return pciFunction
  }

  unplug(kind: Unpluggable): number {
    return [...this.#functions.values()].filter((each) => each.unplug(kind)).length
  }

  #freeDevice(name: string): number {
    for (let device = 1; device < DEVICES; device++) if (!this.#functions.has(device << 3)) return device
    throw new NonrootError({
      code: 'device.create',
      message: `${name}: all ${DEVICES} devices of the PCI bus are taken`,
      thing: name,
      remedy: 'put several functions into one device (`at`), or leave a device out',
    })
  }

  // BARs

  claim(kind: PciBarDescription['kind'], size: number, handler: IoHandler): IoRegion {
    const align = (next: number): number => Math.ceil(next / size) * size
    let region: IoRegion
    if (kind === 'io') {
      const base = align(this.#nextPort)
      this.#room(base + size <= 0x10000, size, 'ports')
      this.#nextPort = base + size
      region = this.#context.portIo(base, size, handler)
    } else {
      // A page of its own for each, so that a guest can map one without another.
      const base = align(Math.ceil(this.#nextMemory / 4096) * 4096)
      this.#room(base + size <= Place.pciWindow + Place.pciWindowLength, size, 'bytes')
      this.#nextMemory = base + size
      region = this.#context.mmio({ at: base, length: size }, handler)
    }
    region.disable()
    return region
  }

  #room(fits: boolean, size: number, unit: string): void {
    if (fits) return
    throw new NonrootError({
      code: 'device.create',
      message: `no room for a BAR of ${size} ${unit} in the PCI window`,
      remedy: 'make BARs smaller, or use fewer devices',
    })
  }

  /** Make BARs answer where the guest put them, as far as nothing else is there. */
  place(): void {
    if (this.#placing) return
    this.#placing = true
    for (const pciFunction of this.#functions.values()) {
      for (const bar of pciFunction.bars) {
        if (bar.region.enabled && pciFunction.decoded(bar) !== bar.region.base) bar.region.disable()
      }
    }
    for (const pciFunction of this.#functions.values()) {
      for (const bar of pciFunction.bars) {
        const base = pciFunction.decoded(bar)
        if (base === undefined || bar.region.enabled || !this.#free(bar, base)) continue
        if (bar.region.base !== base) bar.region.move(base)
        bar.region.enable()
      }
    }
    this.#placing = false
  }

  #free(bar: Bar, base: number): boolean {
    const end = base + bar.size
    if (bar.kind === 'io') {
      if (
        base < PCI_IO_WINDOW.base ||
        end > 0x10000 ||
        (this.#acpi.enabled && overlaps(base, bar.size, this.#acpi.base, this.#acpi.length))
      )
        return false
    } else {
      const low = base >= MEMORY_START && end <= MEMORY_END
      if (!low && !(base >= MEMORY64_START && end <= MEMORY64_END)) return false
      if (this.#ecam.enabled && overlaps(base, bar.size, this.#ecam.base, this.#ecam.length)) return false
      if (this.#touchesRam(base, bar.size)) return false
    }
    for (const { bars } of this.#functions.values()) {
      for (const other of bars) {
        if (other === bar || !other.region.enabled || (other.kind === 'io') !== (bar.kind === 'io')) continue
        if (overlaps(base, bar.size, other.region.base, other.size)) return false
      }
    }
    return true
  }

  #touchesRam(base: number, length: number): boolean {
    return this.#context.memoryMap.regions.some((region) => overlaps(base, length, region.start, region.length))
  }

  // Configuration accesses

  #readPort(offset: number, size: IoSize): number {
    if (offset === 0 && size === 4) return this.#address
    if (offset === RESET_OFFSET && size === 1) return this.#reset.value
    if (offset < 4 || !(this.#address & ENABLE_CONFIG)) return ALL_ONES[size]
    return this.#read(
      (this.#address >> 16) & 0xff,
      (this.#address >> 8) & 0xff,
      (this.#address & 0xfc) + (offset & 3),
      size,
    )
  }

  #writePort(offset: number, size: IoSize, value: number): void {
    if (offset === 0 && size === 4) this.#address = (value & 0x80ff_fffc) >>> 0
    else if (offset === RESET_OFFSET && size === 1) this.#reset.write(value)
    else if (offset >= 4 && this.#address & ENABLE_CONFIG) {
      this.#write(
        (this.#address >> 16) & 0xff,
        (this.#address >> 8) & 0xff,
        (this.#address & 0xfc) + (offset & 3),
        size,
        value,
      )
    }
  }

  #read(bus: number, deviceFunction: number, offset: number, size: IoSize): number {
    const target = bus === 0 ? this.#functions.get(deviceFunction) : undefined
    return target ? target.guestRead(offset, size) : ALL_ONES[size]
  }

  #write(bus: number, deviceFunction: number, offset: number, size: IoSize, value: number): void {
    if (bus === 0) this.#functions.get(deviceFunction)?.guestWrite(offset, size, value)
  }

  // All of it

  reset(): void {
    this.#address = 0
    this.#reset.value = 0
    for (const pciFunction of this.#functions.values()) pciFunction.reset()
  }

  save(): Snapshot {
    const functions: Record<string, Snapshot['data']> = {}
    for (const [requesterId, pciFunction] of this.#functions) functions[requesterId] = pciFunction.save().data
    return { type: TYPE, version: 1, data: { address: this.#address, reset: this.#reset.value, functions } }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    const functions = data['functions'] as Record<string, Snapshot['data']>
    const missing = Object.keys(functions).find((requesterId) => !this.#functions.has(Number(requesterId)))
    if (missing !== undefined || Object.keys(functions).length !== this.#functions.size) {
      throw new NonrootError({
        code: 'snapshot.mismatch',
        message: 'the snapshot has other PCI functions than this machine',
        thing: TYPE,
        remedy: 'restore it with the devices that it was saved with',
      })
    }
    this.#address = data['address'] as number
    this.#reset.value = data['reset'] as number
    for (const [requesterId, saved] of Object.entries(functions)) {
      this.#functions.get(Number(requesterId))!.restore({ type: 'pci-function', version: 1, data: saved })
    }
  }
}

const overlaps = (start: number, length: number, otherStart: number, otherLength: number): boolean =>
  start < otherStart + otherLength && otherStart < start + length

/** Where firmware puts the ACPI registers: anywhere else they could hide another device. */
const ACPI_BASES: ReadonlySet<number> = new Set([0x600, 0xb000])
