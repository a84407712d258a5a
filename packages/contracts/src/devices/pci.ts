/** A PCI function as its device sees it. The bus, ECAM, BAR placement and MSI-X tables are the I/O model's. */

import type { IoHandler, IoRegion } from './io-region.ts'
import type { InterruptLine } from './interrupts.ts'
import { token } from '../base/token.ts'

export type PciBarDescription =
  | {
      readonly kind: 'mmio32' | 'mmio64'
      readonly size: number
      readonly handler: IoHandler
      readonly prefetchable?: boolean
      /** The guest placed the BAR at an address, or (undefined) it answers nowhere. Before the registers answer there. */
      readonly onPlaced?: (address: number | undefined) => void
    }
  | { readonly kind: 'io'; readonly size: number; readonly handler: IoHandler }

/** A capability in configuration space: the body after the two header bytes, and which of its bits the guest may write. */
export interface PciCapability {
  readonly id: number
  readonly body: Uint8Array
  /** One byte per body byte: bits the guest may change. Absent: read-only. */
  readonly writeMask?: Uint8Array
  /** Registers in the body, for capabilities with side effects (VIRTIO_PCI_CAP_PCI_CFG). `offset` from the capability's start. */
  readonly handler?: IoHandler
}

/** Emulated hardware, by what it does: what a guest asks to be taken away that has better devices. */
export type Unpluggable = 'disk' | 'nvme' | 'network'

/** As in the PCI Local Bus specification's type 0 header. */
export interface PciFunctionDescription {
  readonly vendorId: number
  readonly deviceId: number
  readonly subsystemVendorId?: number
  readonly subsystemId?: number
  readonly revision?: number
  /** Base class, subclass, programming interface: 0xBBSSPP. */
  readonly classCode: number
  /** By BAR number, 0 to 5; a 64-bit BAR takes two. */
  readonly bars?: Readonly<Partial<Record<0 | 1 | 2 | 3 | 4 | 5, PciBarDescription>>>
  readonly capabilities?: readonly PciCapability[]
  /** MSI-X vectors wanted (up to 2048). 0 or absent: none. The bus keeps table and pending bits, in a BAR that it chooses. */
  readonly msixVectors?: number
  /** MSI vectors wanted: a power of two up to 32. */
  readonly msiVectors?: number
  /** INTA to INTD. Absent: no pin. */
  readonly interruptPin?: 'A' | 'B' | 'C' | 'D'
  /** A fixed address (`00:1f.0`) where guests expect it. Bus 0 if absent; guests' buses have no other. */
  readonly at?: { readonly bus?: number; readonly device: number; readonly function: number }
  /** The guest changed the command register (I/O, memory, bus master enable). */
  readonly onCommand?: (command: number) => void
  /** The guest may unplug it (`PciUnplug`). Absent: it stays. */
  readonly unpluggable?: Unpluggable
  /** It was unplugged, or is back after the machine's reset. For registers that no BAR decodes. */
  readonly onPlugged?: (on: boolean) => void
}

/** A device's function on the bus. */
export interface PciFunction {
  /** `bus << 8 | device << 3 | function`: identifies the requester to an IOMMU. */
  readonly requesterId: number
  /** The pin, level-triggered. Inactive if INTx is disabled or MSI/MSI-X is enabled. */
  readonly interrupt: InterruptLine
  readonly msixEnabled: boolean
  /** The guest set Bus Master Enable: the function may access memory and send messages. */
  readonly busMaster: boolean
  /** Sends an MSI-X (or MSI) vector as programmed by the guest; masked vectors become pending. */
  signal(vector: number): void
  bar(number: number): IoRegion | undefined
  /** Reads configuration space without side effects, for capabilities that mirror it. */
  configRead(offset: number, size: 1 | 2 | 4): number
  /** Changes the value of a configuration register (class code, status). */
  configWrite(offset: number, size: 1 | 2 | 4, value: number): void
}

/** Offered by an I/O model that has a PCI bus; `DeviceContext.pci` goes through it. */
export interface PciBus {
  add(name: string, description: PciFunctionDescription): PciFunction
  /** Function-level reset: configuration space, MSI and MSI-X are as at power-on. The device resets itself. */
  reset?(requesterId: number): void
}
export const PciBus = token<PciBus>('PciBus')

/** Offered by an I/O model whose bus can lose functions. */
export interface PciUnplug {
  /** Functions of that kind are gone until the machine's reset. How many they were. */
  unplug(kind: Unpluggable): number
}
export const PciUnplug = token<PciUnplug>('PciUnplug')
