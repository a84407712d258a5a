/** Devices and the capabilities that they receive. A device never sees a bus, a CPU mode or a transport. */

import type { Gpa } from '../base/address.ts'
import type { BackendKinds } from '../host/backends.ts'
import type { Clock } from './clock.ts'
import type { DmaMemory } from '../memory/dma-memory.ts'
import type { MemoryMap } from '../memory/guest-memory.ts'
import type { InterruptLine, MessageInterrupts } from './interrupts.ts'
import type { IoHandler, IoRegion } from './io-region.ts'
import type { Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import type { PciFunction, PciFunctionDescription } from './pci.ts'
import type { PowerControl } from './power.ts'
import type { Snapshot } from '../base/snapshot.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'

/**
 * The argument of `create`: everything a device may access. Using a capability is optional; claims are made in `create`. A claim that collides with
 * another device's throws `device.create`, naming both.
 */
export interface DeviceContext {
  /** The device's name in the configuration, or its kind and a number: `virtio-blk0`. Unique in the VM. */
  readonly name: string

  /** Claims `length` ports from `base` (0 to 0xFFFF). */
  portIo(base: number, length: number, handler: IoHandler): IoRegion
  /** Claims guest-physical addresses: at `at`, or anywhere free in the machine's window if only a size is given. */
  mmio(range: number | { readonly at: Gpa | number; readonly length: number }, handler: IoHandler): IoRegion
  /** Adds a PCI function for the device. Throws if the stack's I/O models have no PCI. */
  pci(description: PciFunctionDescription): PciFunction
  /**
   * An interrupt line: by global system interrupt number if the platform fixes it (UART: 4), or by a name that the device chooses, for which the
   * kernel selects a free line.
   */
  interrupt(line: number | string): InterruptLine
  readonly messageInterrupts: MessageInterrupts
  /** The guest's memory, by the addresses that the guest gives this device: an IOMMU may stand in between. */
  readonly dma: DmaMemory
  /** The machine's memory regions. */
  readonly memoryMap: MemoryMap
  readonly clock: Clock
  readonly power: PowerControl
  /** Opens a host back end. Slow: await it in an async `create`. */
  backend<K extends keyof BackendKinds>(
    kind: K,
    request: BackendKinds[K]['request'],
  ): Promise<BackendKinds[K]['backend']>
  /**
   * A capability that an I/O model of the stack offers beyond these (a virtio transport, an event channel), or the kernel (`FrameReturn`). Throws if
   * none does.
   */
  capability<T>(of: Token<T>): T
  /** The device's own scope. */
  readonly metrics: Metrics
  readonly log: Log
}

/** A device. Every part is optional: registers were claimed in `create`. */
export interface Device {
  /** Power-on state. Called on machine reset, never before the first run. */
  reset?(): void
  /** Called only while no vCPU of the VM runs and `quiesce` has resolved. */
  save?(): Snapshot
  restore?(snapshot: Snapshot): void
  /** Completes requests in flight. Called before save and before dispose. */
  quiesce?(): Promise<void>
  /** Releases files, sockets, timers. Called once. */
  dispose?(): void | Promise<void>
  /** What it offers other parts of the VM, by token: `Balloon` for a reclaim policy. */
  readonly offers?: ReadonlyMap<Token<unknown>, unknown>
}
export const Device = token<Device>('Device')
