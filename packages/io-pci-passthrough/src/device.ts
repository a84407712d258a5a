/**
 * A function of the host, assigned: what the guest finds at its address. Configuration space is virtual, registers are the function's own (mapped, so that
 * accesses do not exit), DMA goes through the host's IOMMU, and its messages are posted.
 */

import { Assignment, NonrootError } from '@nonroot/contracts'
import type {
  Device,
  DeviceContext,
  HostFunction,
  HostInterrupt,
  Hpa,
  IoHandler,
  PciBarDescription,
  PciFunction,
  PciFunctionDescription,
} from '@nonroot/contracts'
import { readConfiguration, Command, Offset } from './configuration.ts'
import type { Configuration } from './configuration.ts'
import type { Domain } from './domain.ts'
import { driverOf } from './driver.ts'
import type { IommuDriver } from './driver.ts'
import { PostedDescriptor } from './vtd/interrupts.ts'

const PAGE = 4096

export interface AssignedOptions {
  /** Address on the host: `01:00.0`. */
  readonly host: string
}

export class AssignedFunction implements Device {
  readonly #assignment: Assignment
  readonly #driver: IommuDriver
  readonly #host: HostFunction
  readonly #domain: Domain
  readonly #configuration: Configuration
  readonly #pci: PciFunction
  readonly #descriptor: Hpa
  readonly #notification: HostInterrupt
  readonly #entries: readonly { readonly index: number; readonly address: number; readonly data: number }[]
  /** BARs mapped into the guest, by number: how to unmap. */
  readonly #mapped = new Map<number, () => void>()
  #disposed = false

  static async create({ host: at }: AssignedOptions, context: DeviceContext): Promise<AssignedFunction> {
    refuseBehindIommu(context, `host function ${at}`)
    const assignment = assignmentOf(context, at)
    const owned = await assignment.take(at)
    try {
      return new AssignedFunction(assignment, driverOf(assignment, at), owned, context)
    } catch (error) {
      await owned.release()
      throw error
    }
  }

  private constructor(assignment: Assignment, driver: IommuDriver, host: HostFunction, context: DeviceContext) {
    const { memory, frames } = assignment
    this.#assignment = assignment
    this.#driver = driver
    this.#host = host
    this.#configuration = readConfiguration(assignment.bus, host)
    const undo: (() => void)[] = []
    try {
      this.#domain = driver.open(frames)
      undo.push(() => driver.close(frames))
      this.#descriptor = descriptorFrame(assignment)
      undo.push(() => memory.freeFrame(this.#descriptor))
      this.#notification = assignment.interrupt(() => this.#deliver())
      undo.push(() => this.#notification.free())
      memory.bytes[this.#descriptor + PostedDescriptor.vector] = this.#notification.vector
      this.#entries = driver.allocateInterrupts(host.requesterId, this.#configuration.vectors, this.#descriptor)
      undo.push(() => driver.freeInterrupts(this.#entries))
      this.#pci = context.pci(this.#describe())
    } catch (error) {
      for (const step of undo.toReversed()) step()
      throw error
    }
    driver.attach(host.requesterId, this.#domain)
    this.#program()
  }

  // What the guest finds

  #describe(): PciFunctionDescription {
    const { ids, bars, msix, vectors } = this.#configuration
    const described: Record<number, PciBarDescription> = {}
    for (const { number, kind, size, base } of bars) {
      described[number] = {
        ...{ kind, size: Math.max(size, PAGE) },
        handler: this.#registers(base, size),
        onPlaced: (at) => this.#place(number, at, base, size),
      }
    }
    return {
      ...ids,
      bars: described,
      ...(msix ? { msixVectors: vectors } : { msiVectors: vectors }),
      onCommand: (command) => this.#command(command),
    }
  }

  /** For accesses that exit, because the paging strategy does not map registers. */
  #registers(base: number, length: number): IoHandler {
    const { bus } = this.#assignment
    return {
      read: (offset, size) => (offset < length ? bus.readMmio(base + offset, size) : 0),
      write: (offset, size, value) => {
        if (offset < length) bus.writeMmio(base + offset, size, value)
      },
    }
  }

  /** The guest put a BAR somewhere, or nowhere: the mapping follows. BARs of less than a page are not mapped: others may be beside them. */
  #place(number: number, at: number | undefined, base: number, size: number): void {
    this.#mapped.get(number)?.()
    this.#mapped.delete(number)
    if (at === undefined || size % PAGE !== 0 || at % PAGE !== 0) return
    this.#mapped.set(number, this.#assignment.mapRegisters(at, base, size))
  }

  /** Only the guest decides whether its function is a bus master; decoding on the host stays on. */
  #command(command: number): void {
    const { bus } = this.#assignment
    const value = Command.memory | Command.interruptDisable | (command & Command.busMaster)
    bus.writeMmio(this.#host.configuration + Offset.command, 2, value)
  }

  // Interrupts

  /** Messages of the function go to its entries in the remapping table. The guest's own table and masks are virtual. */
  #program(): void {
    this.#configuration.program(this.#assignment.bus, this.#entries)
    this.#command(this.#pci.configRead(Offset.command, 2))
  }

  /** The notification of the posted descriptor: takes what is pending to the guest's table. */
  #deliver(): void {
    const { words } = this.#assignment.memory
    const at = this.#descriptor >>> 2
    const control = at + (PostedDescriptor.control >> 2)
    Atomics.and(words, control, ~PostedDescriptor.outstanding)
    for (let word = 0; word < 8; word++) {
      for (let bits = Atomics.exchange(words, at + word, 0); bits !== 0; bits &= bits - 1)
        this.#pci.signal(word * 32 + 31 - Math.clz32(bits & -bits))
    }
  }

  // Life

  quiesce(): Promise<void> {
    return this.#host.quiesce()
  }

  reset(): void {
    this.#host.reset()
    this.#program()
  }

  async dispose(): Promise<void> {
    if (this.#disposed) return
    this.#disposed = true
    const { memory, frames } = this.#assignment
    for (const unmap of this.#mapped.values()) unmap()
    this.#host.reset()
    await this.#host.quiesce()
    await this.#driver.detach(this.#host.requesterId, this.#domain)
    this.#driver.freeInterrupts(this.#entries)
    this.#notification.free()
    memory.freeFrame(this.#descriptor)
    this.#driver.close(frames)
    await this.#host.release()
  }
}

/** The guest's driver would give its own IOMMU's addresses to a device that is not behind it. Throws `device.create`. */
export function refuseBehindIommu({ name, dma }: DeviceContext, what: string): void {
  if (!dma.untranslated) return
  throw new NonrootError({
    code: 'device.create',
    message: `${name}: ${what} cannot be behind the guest's IOMMU, which translates only DMA of emulated and virtio devices`,
    thing: name,
    remedy: 'remove intel-iommu from stack.io, or use the device emulated',
  })
}

function assignmentOf(context: DeviceContext, at: string): Assignment {
  try {
    return context.capability(Assignment)
  } catch (error) {
    throw new NonrootError({
      code: 'device.create',
      message: `${context.name}: the host has no devices, so that there is no host function ${at}`,
      thing: context.name,
      value: at,
      remedy: `add host: { devices: [{ kind: nvme, at: "${at}", image: ./disk.img }] }`,
      cause: error,
    })
  }
}

function descriptorFrame({ memory }: Assignment): Hpa {
  const frame = memory.allocateFrame()
  if (frame !== undefined) return frame
  throw new NonrootError({
    code: 'host.memory',
    message: 'no host frame is free for the interrupts of an assigned device',
    thing: 'host.memory',
    remedy: 'give the host more memory (host.memory)',
  })
}
