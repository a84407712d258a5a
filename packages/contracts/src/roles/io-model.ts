/** An I/O model: the platform that devices and guest meet on. Emulated PC, virtio transports, passthrough, Xen's channels. */

import type { Gpa } from '../base/address.ts'
import type { ConsoleBackend } from '../host/backends.ts'
import type { Device, DeviceContext } from '../devices/device.ts'
import type { Iommu } from '../memory/dma-memory.ts'
import type { InterruptController } from '../devices/interrupts.ts'
import type { PciBus } from '../devices/pci.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'

/** What the platform has, for whoever writes tables about it (ACPI, device tree, Xen start info). Absent = the machine has none. */
export interface PlatformDescription {
  readonly localApic?: { readonly address: Gpa }
  readonly ioApics?: readonly {
    readonly id: number
    readonly address: Gpa
    readonly gsiBase: number
    readonly pins: number
  }[]
  /** A pair of 8259s is there (MADT's PCAT_COMPAT). */
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
  readonly serial?: readonly { readonly port: number; readonly gsi: number }[]
  readonly hpet?: { readonly address: Gpa }
  readonly rtc?: { readonly port: number; readonly gsi: number }
  readonly i8042?: boolean
  readonly vga?: boolean
  /** virtio-mmio transports. */
  readonly virtioMmio?: readonly { readonly address: Gpa; readonly length: number; readonly gsi: number }[]
}

/** What an I/O model is created with: a device's capabilities, for its own devices, and the machine's shape. */
export interface IoModelContext extends DeviceContext {
  readonly vcpuCount: number
  /** Guest-physical window for MMIO and PCI below 4 GiB that holds no RAM. */
  readonly mmioWindow: { readonly start: Gpa; readonly length: number }
  /** The console that the configuration names as the machine's first (serial port, hvc). */
  readonly console: ConsoleBackend
  /** A context of another name: for the platform's own devices (`uart0`), whose metrics and errors then carry it. */
  child(name: string): DeviceContext
}

/**
 * One per VM and entry of `stack.io`, created in order before the devices. It claims what it answers to in `create`, by the same
 * capabilities as any device; what it is made of, it lists, so that reset and save reach each part.
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
  /** Further capabilities for devices: `DeviceContext.capability(token)` finds them. Called once per device that asks. */
  readonly offers?: ReadonlyMap<Token<unknown>, (forDevice: DeviceContext) => unknown>
  /** Facts for tables. The kernel merges what the stack's models say. Called after all devices were created. */
  describe?(): PlatformDescription
  reset?(): void
  dispose?(): void | Promise<void>
}
export const IoModel = token<IoModel>('IoModel')
