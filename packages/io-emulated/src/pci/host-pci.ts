/**
 * The PCI of the host: configuration space by ECAM, BARs where firmware has put them, messages. No chipset and no pins: interrupts of the host's
 * devices are messages. The functions are those of guests' machines.
 */

import { gpa, NonrootError } from '@nonroot/contracts'
import type {
  InterruptLine,
  IoHandler,
  IoModel,
  IoModelContext,
  IoRegion,
  PciBarDescription,
  PciBus,
  PciFunction,
  PciFunctionDescription,
} from '@nonroot/contracts'
import { PCI_IO_WINDOW, Place } from '../pc-addresses.ts'
import { PciDeviceFunction } from './function.ts'
import type { PciParent } from './function.ts'
import { Command, Config, EXTENDED_CONFIG_SIZE } from './registers.ts'

const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const
/** The first bus behind a root port: each of its devices is alone there. */
const FIRST_BUS = 1
const BUSES = 256
const NO_PIN: InterruptLine = { raise: () => {}, lower: () => {}, pulse: () => {} }

export class HostPci implements PciBus, PciParent {
  readonly messages
  readonly #context: IoModelContext
  readonly #functions = new Map<number, PciDeviceFunction>()
  #nextMemory: number = Place.pciWindow
  #nextPort: number = PCI_IO_WINDOW.base

  constructor(context: IoModelContext) {
    this.#context = context
    this.messages = context.messageInterrupts
    const ecam: IoHandler = {
      read: (offset, size) => this.#at(offset)?.guestRead(offset % EXTENDED_CONFIG_SIZE, size) ?? ALL_ONES[size],
      write: (offset, size, value) => this.#at(offset)?.guestWrite(offset % EXTENDED_CONFIG_SIZE, size, value),
    }
    context.mmio({ at: Place.ecam, length: Place.ecamLength }, ecam)
  }

  #at(offset: number): PciDeviceFunction | undefined {
    return this.#functions.get(Math.floor(offset / EXTENDED_CONFIG_SIZE))
  }

  pin(): InterruptLine {
    return NO_PIN
  }

  add(name: string, description: PciFunctionDescription): PciFunction {
    const slot = description.at ?? { bus: this.#freeBus(), device: 0, function: 0 }
    const { bus = 0, device, function: number } = slot
    const place = `${[bus, device].map((part) => part.toString(16).padStart(2, '0')).join(':')}.${number}`
    const other = this.#functions.get((bus << 8) | (device << 3) | number)
    if (bus >= BUSES || device > 31 || number > 7 || other) {
      throw new NonrootError({
        code: 'device.create',
        message: other
          ? `${name} and ${other.name} both want host function ${place}`
          : `there is no host function ${place}`,
        thing: name,
        value: place,
        remedy: 'give one of them another address (at), or none for a free one',
      })
    }
    const added = new PciDeviceFunction(this, name, slot, description)
    this.#functions.set(added.requesterId, added)
    this.#powerOn(added)
    return added
  }

  #freeBus(): number {
    for (let bus = FIRST_BUS; ; bus++) if (![...this.#functions.keys()].some((id) => id >> 8 === bus)) return bus
  }

  /** As firmware leaves it: BARs are decoded, and it is no bus master. */
  #powerOn(added: PciDeviceFunction): void {
    added.guestWrite(Config.command, 2, Command.memory)
  }

  claim(kind: PciBarDescription['kind'], size: number, handler: IoHandler): IoRegion {
    if (kind === 'io') {
      const ports = this.#context.portIo(this.#nextPort, size, handler)
      this.#nextPort += size
      ports.disable()
      return ports
    }
    // A page of its own for each, so that each can be mapped alone.
    const step = Math.max(size, 4096)
    const base = Math.ceil(this.#nextMemory / step) * step
    if (base + size > Place.pciWindow + Place.pciWindowLength) {
      throw new NonrootError({
        code: 'device.create',
        message: `no room for a BAR of ${size} bytes in the host's PCI window`,
        remedy: 'make BARs smaller, or use fewer host devices',
      })
    }
    this.#nextMemory = base + step
    const region = this.#context.mmio({ at: base, length: size }, handler)
    region.disable()
    return region
  }

  /** BARs stay where firmware has put them; only decoding is switched. */
  place(): void {
    for (const each of this.#functions.values()) {
      for (const bar of each.bars) {
        if (each.decoded(bar) === bar.region.base) bar.region.enable()
        else bar.region.disable()
      }
    }
  }

  reset(requesterId: number): void {
    const target = this.#functions.get(requesterId)
    target?.reset()
    if (target) this.#powerOn(target)
  }
}

export function createHostPci(_options: object, context: IoModelContext): IoModel {
  const pciBus = new HostPci(context)
  const ecam = { address: gpa(Place.ecam), startBus: 0, endBus: BUSES - 1 }
  return { pciBus, describe: () => ({ pci: { ecam, windows: [], intx: [] } }) }
}
