/** An I/O model: the platform on which devices and guest communicate. Emulated PC, virtio transports, passthrough, Xen's channels. */

import type { Gpa } from '../base/address.ts'
import type { ConsoleBackend } from '../host/backends.ts'
import type { Device, DeviceContext } from '../devices/device.ts'
import type { Iommu } from '../memory/dma-memory.ts'
import type { InterruptController } from '../devices/interrupts.ts'
import type { PciBus } from '../devices/pci.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'

/** The platform's hardware, for code that writes tables about it (ACPI, device tree, Xen start info). An absent member: the machine has none. */
export interface PlatformDescription {
  readonly localApic?: { readonly address: Gpa }
  readonly ioApics?: readonly {
    readonly id: number
    readonly address: Gpa
    readonly gsiBase: number
    readonly pins: number
    /** The PCI requester as which its messages reach an IOMMU. */
    readonly requesterId?: number
  }[]
  /** There is a pair of 8259s (MADT's PCAT_COMPAT). */
  readonly legacyPic?: boolean
  readonly interruptOverrides?: readonly {
    readonly isaIrq: number
    readonly gsi: number
    readonly trigger: 'edge' | 'level'
    readonly polarity: 'high' | 'low'
  }[]
  /** ACPI fixed hardware: port numbers. */
  readonly acpi?: {
    readonly pm1Event: number
    readonly pm1Control: number
    readonly pmTimer?: number
    readonly gpe0?: { readonly base: number; readonly length: number }
    readonly smiCommand?: number
    readonly sciGsi: number
    /** SLP_TYP value that means S5. */
    readonly sleepTypeS5: number
    readonly reset?: { readonly port: number; readonly value: number }
  }
  readonly pci?: {
    readonly ecam?: { readonly address: Gpa; readonly startBus: number; readonly endBus: number }
    readonly windows: readonly { readonly kind: 'io' | 'mmio'; readonly base: number; readonly length: number }[]
    /** GSI of device d's pin p (0 = INTA): `intx[(d + p) % intx.length]`. */
    readonly intx: readonly number[]
    /**
     * How the pins reach the 8259 pair, for a system that does not use the I/O APIC: `registers[n]` in the configuration space of this function
     * (on bus 0) routes what `intx[n]` names to one of `irqs`; bit 7 set routes it nowhere.
     */
    readonly picRouting?: {
      readonly device: number
      readonly function: number
      readonly registers: readonly number[]
      readonly irqs: readonly number[]
    }
  }
  /** ACPI without fixed hardware: registers of one port each. (ACPI, "Sleep Control and Status Registers") */
  readonly reducedAcpi?: {
    readonly sleepControl: number
    readonly sleepStatus: number
    /** SLP_TYP value that means S5. */
    readonly sleepTypeS5: number
  }
  /** Pages of RAM that the platform uses itself: memory maps report them as reserved. */
  readonly reservedMemory?: readonly { readonly address: Gpa; readonly length: number }[]
  readonly serial?: readonly { readonly port: number; readonly gsi: number }[]
  readonly hpet?: { readonly address: Gpa }
  /** An IOMMU's registers, and whether it remaps interrupts. */
  readonly iommu?: { readonly address: number; readonly remapsInterrupts: boolean }
  readonly rtc?: { readonly port: number; readonly gsi: number }
  readonly i8042?: boolean
  readonly vga?: boolean
  /** virtio-mmio transports. */
  readonly virtioMmio?: readonly { readonly address: Gpa; readonly length: number; readonly gsi: number }[]
}

/** The argument of an I/O model's `create`: a device's capabilities, for its own devices, and properties of the machine. */
export interface IoModelContext extends DeviceContext {
  readonly vcpuCount: number
  /** Guest-physical window for MMIO and PCI below 4 GiB that holds no RAM. */
  readonly mmioWindow: { readonly start: Gpa; readonly length: number }
  /** The console configured as the machine's first (serial port, hvc). */
  readonly console: ConsoleBackend
  /** A context with another name, for the platform's own devices (`uart0`): their metrics and errors use it. */
  child(name: string): DeviceContext
}

/**
 * One per VM and entry of `stack.io`, created in order before the devices. It claims ports and addresses in `create`, by the same capabilities as any
 * device, and lists its parts, so that reset and save reach each.
 */
export interface IoModel extends Partial<Saveable> {
  /** Exactly one model of a stack has it. */
  readonly interruptController?: InterruptController
  /** At most one model of a stack has it. */
  readonly pciBus?: PciBus
  /** At most one model of a stack has it. What was created before the model reaches memory directly. */
  readonly iommu?: Iommu
  /** The platform's own devices, by name. */
  readonly devices?: ReadonlyMap<string, Device>
  /** Further capabilities for devices, returned by `DeviceContext.capability(token)`. Called once for each device that requests one. */
  readonly offers?: ReadonlyMap<Token<unknown>, (forDevice: DeviceContext) => unknown>
  /** Facts for tables. The kernel merges those of the stack's models. Called after all devices were created. */
  describe?(): PlatformDescription
  reset?(): void
  dispose?(): void | Promise<void>
}
export const IoModel = token<IoModel>('IoModel')
