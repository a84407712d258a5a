/** Functions of the host, and what the kernel offers to a device that assigns one to its VM. */

import type { GuestFrames } from '../memory/guest-frames.ts'
import type { HostMemory } from '../memory/host-memory.ts'
import { token } from '../base/token.ts'
import type { HostBus } from './host-bus.ts'

/** A PCI function of the host, for lists. */
export interface HostFunctionInfo {
  /** `01:00.0` */
  readonly at: string
  /** The device's name in the configuration, and its kind. */
  readonly name: string
  readonly kind: string
  readonly vendorId: number
  readonly deviceId: number
  /** 0xBBSSPP */
  readonly classCode: number
  /** Functions of one group may reach each other behind an IOMMU's back: they have one owner. */
  readonly group: number
  /** The VM that it is assigned to. Undefined: it has none. */
  readonly owner: string | undefined
}

/** A function that a VM owns. */
export interface HostFunction extends HostFunctionInfo {
  /** `bus << 8 | device << 3 | function`: how its DMA and its messages are known. */
  readonly requesterId: number
  /** Host-physical address of its configuration space. */
  readonly configuration: number
  /** Waits for its transfers in progress. */
  quiesce(): Promise<void>
  /** Resets it: its state is that of power-on. Transfers in progress may still end: `quiesce` first. */
  reset(): void
  /** Resets it and gives it back. Call it when nothing can reach the VM's memory any more. */
  release(): Promise<void>
}

/** An interrupt of the host's, for messages of its devices: the handler runs for each, on the thread of the VM. */
export interface HostInterrupt {
  /** As written by a device without remapping. */
  readonly address: number
  readonly data: number
  readonly vector: number
  free(): void
}

/** Offered by the kernel to the devices of a VM, if the host has functions. */
export interface Assignment {
  readonly bus: HostBus
  readonly memory: HostMemory
  /** Registers of the host's IOMMU, host-physical. Undefined: it has none. */
  readonly iommu: number | undefined
  readonly functions: readonly HostFunctionInfo[]
  /** The VM's frames: those that a device may reach must be pinned. */
  readonly frames: GuestFrames
  /** Makes the function this VM's, reset. Throws `device.create`, naming function, owner and remedy, if it is not there or not free. */
  take(at: string): Promise<HostFunction>
  /**
   * Lets guest-physical pages lead to registers on the host's bus. Whole pages that are not RAM. Call the result to end it: when that returns, no
   * translation leads there.
   */
  mapRegisters(address: number, hostAddress: number, length: number): () => void
  interrupt(handler: () => void): HostInterrupt
}
export const Assignment = token<Assignment>('Assignment')
