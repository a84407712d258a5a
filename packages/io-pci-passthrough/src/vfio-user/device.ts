/**
 * A function that another process serves, in a guest. Configuration space is virtual; registers are the peer's, by messages: reads wait for their reply
 * without holding up other VMs, writes are posted. When the peer has gone, registers read as all ones, as those of a device that was pulled out.
 */

import { IO_DEFERRED, IO_DEFERRED_64, NonrootError } from '@nonroot/contracts'
import type {
  Counter,
  Device,
  DeviceContext,
  IoHandler,
  IoSize,
  PciBarDescription,
  PciFunction,
  PciFunctionDescription,
} from '@nonroot/contracts'
import { CapabilityId, Command as PciCommand, findCapability, Offset, readIds } from '../configuration.ts'
import { refuseBehindIommu } from '../device.ts'
import { VfioUserClient } from './client.ts'
import type { RemoteDescription } from './client.ts'
import { Region } from './facts.ts'

export interface VfioUserOptions {
  /** The UNIX socket on which a vfio-user server listens. */
  readonly socket: string
}

/** Writes without a reply yet: the guest waits before it makes more. */
const MOST_POSTED = 256
const ONES_64 = 0xffff_ffff_ffff_ffffn

interface Pending {
  readonly region: number
  readonly offset: number
  readonly size: number
  /** Undefined: the reply has not come. */
  value: bigint | undefined
}

export class RemoteFunction implements Device {
  readonly #client: VfioUserClient
  readonly #pci: PciFunction
  /** The read for which the guest waits. It asks again until it is answered. */
  #pending: Pending | undefined
  #isDisposed = false
  readonly #reads: Counter
  readonly #writes: Counter
  readonly #refused: Counter

  /** `silentMs`: how long the peer may owe a reply. Default: 10 s. */
  static async create({ socket }: VfioUserOptions, context: DeviceContext, silentMs?: number): Promise<RemoteFunction> {
    refuseBehindIommu(context, socket)
    const stream = await context.backend('stream', { path: socket })
    let made: RemoteFunction | undefined
    const client = await VfioUserClient.connect(stream, {
      name: socket,
      memory: context.dma,
      onVector: (vector) => made && made.#pci.signal(vector),
      onClose: (reason) => {
        if (made && !made.#isDisposed) context.log.warn(`${socket}: ${reason}; its registers read as all ones now`)
      },
      ...(silentMs === undefined ? {} : { silentMs }),
    })
    try {
      return (made = new RemoteFunction(client, context))
    } catch (error) {
      client.close()
      throw error
    }
  }

  private constructor(client: VfioUserClient, context: DeviceContext) {
    this.#client = client
    const { metrics } = context
    this.#reads = metrics.counter('reads', 'registers read from the peer')
    this.#writes = metrics.counter('writes', 'registers written to the peer')
    this.#refused = metrics.counter('refused', 'accesses that the peer refused')
    this.#pci = context.pci(this.#describe(client.description))
  }

  #describe({ configuration, bars, msix, vectors }: RemoteDescription): PciFunctionDescription {
    const read = (offset: number, size: 1 | 2 | 4): number =>
      size === 4
        ? configuration.getUint32(offset, true)
        : size === 2
          ? configuration.getUint16(offset, true)
          : configuration.getUint8(offset)
    const table = msix ? findCapability(read, CapabilityId.msix) : undefined
    if (msix && table === undefined) {
      throw new NonrootError({
        code: 'device.create',
        message: "the peer's function has vectors of MSI-X and no capability of it",
        remedy: 'use a server that has both',
      })
    }
    // A BAR that begins with the table has nothing else: the guest's table is virtual, and in a BAR that its bus chooses.
    const tableBar = table !== undefined && read(table + 4, 4) < 8 ? read(table + 4, 4) : undefined
    const described: Record<number, PciBarDescription> = {}
    bars.forEach((size, number) => {
      if (size === 0 || number === tableBar) return
      const low = read(Offset.bar0 + 4 * number, 4)
      const kind = low & 1 ? 'io' : (low & 6) === 4 ? 'mmio64' : 'mmio32'
      described[number] = { kind, size, handler: this.#registers(number, size) }
    })
    return {
      ...readIds(read),
      bars: described,
      ...(msix ? { msixVectors: vectors } : { msiVectors: vectors }),
      onCommand: (command) => this.#command(command),
    }
  }

  #command(command: number): void {
    const value = PciCommand.memory | PciCommand.interruptDisable | (command & PciCommand.busMaster)
    this.#client.write(Region.configuration, Offset.command, 2, BigInt(value), () => this.#refused.value++)
  }

  // Registers

  #registers(region: number, length: number): IoHandler {
    const fits = (offset: number, size: number): boolean => offset + size <= length
    return {
      read: (offset, size) => {
        const value = fits(offset, size) ? this.#read(region, offset, size) : ONES_64
        return value === undefined ? IO_DEFERRED : Number(BigInt.asUintN(8 * size, value))
      },
      read64: (offset) => {
        const value = fits(offset, 8) ? this.#read(region, offset, 8) : ONES_64
        return value === undefined ? IO_DEFERRED_64 : value
      },
      write: (offset, size, value) => !fits(offset, size) || this.#write(region, offset, size, BigInt(value >>> 0)),
      write64: (offset, value) => !fits(offset, 8) || this.#write(region, offset, 8, value),
    }
  }

  /** Undefined: not yet. */
  #read(region: number, offset: number, size: IoSize | 8): bigint | undefined {
    if (this.#client.closed !== undefined) return ONES_64
    const before = this.#pending
    if (before?.region !== region || before.offset !== offset || before.size !== size) {
      const asked: Pending = { region, offset, size, value: undefined }
      this.#pending = asked
      this.#reads.value++
      this.#client.read(region, offset, size, (value) => {
        if (value === undefined) this.#refused.value++
        asked.value = value ?? ONES_64
      })
    }
    const { value } = this.#pending!
    if (value !== undefined) this.#pending = undefined
    return value
  }

  /** False: too many are on their way. */
  #write(region: number, offset: number, size: IoSize | 8, value: bigint): boolean {
    if (this.#client.closed !== undefined) return true
    if (this.#client.inFlight >= MOST_POSTED) return false
    this.#writes.value++
    this.#client.write(region, offset, size, value, () => this.#refused.value++)
    return true
  }

  // Life

  quiesce(): Promise<void> {
    return this.#client.settle()
  }
  reset(): void {
    this.#pending = undefined
    this.#client.reset()
  }
  dispose(): void {
    this.#isDisposed = true
    this.#client.close()
  }
}
