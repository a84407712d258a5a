/** PIIX4 IDE function with one drive on its primary channel, at the legacy ports, and its bus master. (82371AB datasheet, "IDE Controller Function") */

import { snapshotData } from '@nonroot/contracts'
import type {
  BlockBackend,
  Device,
  DeviceContext,
  DmaMemory,
  IoSize,
  MemoryPiece,
  PciFunction,
  Snapshot,
} from '@nonroot/contracts'
import { GuestBuffer } from '../ata/buffer.ts'
import type { DataBuffer } from '../ata/buffer.ts'
import { AtaDisk } from '../ata/disk.ts'
import { restoreState, saveState } from '../state.ts'
import { IdeChannel } from './channel.ts'
import type { DmaEngine } from './channel.ts'
import {
  BusMaster,
  BusMasterCommand,
  BusMasterStatus,
  COMMAND_BLOCK,
  CONTROL_PORT,
  IdeTiming,
  MOST_REGIONS,
  PRIMARY_IRQ,
  Region,
} from './registers.ts'

/** Both channels in compatibility mode, with a bus master. */
const ID = { vendorId: 0x8086, deviceId: 0x7111, revision: 1, classCode: 0x010180 } as const
const BUS_MASTER_BAR = 4
const BUS_MASTER_SIZE = 16

const TYPE = 'ide'
const powerOn = () => ({ command: 0, status: 0, table: 0 })

export class Ide implements Device, DmaEngine {
  readonly #function: PciFunction
  readonly #channel: IdeChannel
  readonly #disk: AtaDisk
  readonly #memory: DmaMemory
  readonly #state = powerOn()

  constructor(context: DeviceContext, backend: BlockBackend, options: { readonly serial: string }) {
    this.#memory = context.dma
    const line = context.interrupt(PRIMARY_IRQ)
    this.#disk = new AtaDisk(backend, { serial: options.serial, queueDepth: 0 }, context)
    this.#channel = new IdeChannel(this.#disk, this, (asserted) => (asserted ? line.raise() : line.lower()))
    const legacy = [
      context.portIo(COMMAND_BLOCK.port, COMMAND_BLOCK.length, this.#channel),
      context.portIo(CONTROL_PORT, 1, {
        read: () => this.#channel.status,
        write: (_offset, _size, value) => this.#channel.writeControl(value),
      }),
    ]
    this.#function = context.pci({
      ...ID,
      unpluggable: 'disk',
      onPlugged: (on) => {
        this.reset()
        for (const ports of legacy) {
          if (on) ports.enable()
          else ports.disable()
        }
      },
      bars: {
        [BUS_MASTER_BAR]: {
          kind: 'io',
          size: BUS_MASTER_SIZE,
          handler: {
            read: (offset, size) => this.#read(offset, size),
            write: (offset, size, value) => this.#write(offset, size, value),
          },
        },
      },
    })
    this.#decode()
  }

  /** Configuration space says that the primary channel is decoded; the secondary is not. */
  #decode(): void {
    this.#function.configWrite(IdeTiming.primaryHigh, 1, IdeTiming.decode)
  }

  // Bus master

  #read(offset: number, size: IoSize): number {
    // The second channel's are not there.
    if (offset >= BusMaster.length) return 0
    const { command, status, table } = this.#state
    const bytes = [command, 0, status, 0, table & 0xff, (table >>> 8) & 0xff, (table >>> 16) & 0xff, table >>> 24]
    let value = 0
    for (let byte = 0; byte < size; byte++) value |= (bytes[offset + byte] ?? 0) << (8 * byte)
    return value >>> 0
  }

  #write(offset: number, size: IoSize, value: number): void {
    const state = this.#state
    for (let byte = 0; byte < size; byte++) {
      const at = offset + byte
      const written = (value >>> (8 * byte)) & 0xff
      if (at === BusMaster.command) this.#control(written)
      else if (at === BusMaster.status) {
        const cleared = written & (BusMasterStatus.error | BusMasterStatus.interrupt)
        state.status = (state.status & ~BusMasterStatus.capable & ~cleared) | (written & BusMasterStatus.capable)
      } else if (at >= BusMaster.table && at < BusMaster.length) {
        const shift = 8 * (at - BusMaster.table)
        state.table = ((state.table & ~(0xff << shift)) | (written << shift)) & ~3
      }
    }
  }

  #control(value: number): void {
    const state = this.#state
    const started = (state.command & BusMasterCommand.start) === 0 && (value & BusMasterCommand.start) !== 0
    state.command = value & (BusMasterCommand.start | BusMasterCommand.toMemory)
    if (!(value & BusMasterCommand.start)) state.status &= ~BusMasterStatus.active
    if (!started) return
    state.status |= BusMasterStatus.active
    this.#channel.transfer()
  }

  take(toMemory: boolean): DataBuffer | undefined {
    const { command, status } = this.#state
    if (!(status & BusMasterStatus.active) || ((command & BusMasterCommand.toMemory) !== 0) !== toMemory)
      return undefined
    return new GuestBuffer(this.#memory, this.#regions())
  }

  /** What the table names, up to its end or to where it leaves RAM. */
  #regions(): MemoryPiece[] {
    const pieces: MemoryPiece[] = []
    const { table } = this.#state
    for (let entry = 0; entry < MOST_REGIONS; entry++) {
      const at = (table >>> 0) + entry * Region.size
      const address = this.#memory.readU32(at)
      const bytes = this.#memory.readU16(at + Region.bytes)
      const flags = this.#memory.readU16(at + Region.flags)
      if (address === undefined || bytes === undefined || flags === undefined) break
      pieces.push({ address: (address & ~1) >>> 0, length: bytes & ~1 || Region.most })
      if (flags & Region.last) break
    }
    return pieces
  }

  finished(failed: boolean): void {
    this.#state.status &= ~BusMasterStatus.active
    if (failed) this.#state.status |= BusMasterStatus.error
  }

  interrupted(): void {
    this.#state.status |= BusMasterStatus.interrupt
  }

  // Life

  reset(): void {
    Object.assign(this.#state, powerOn())
    this.#channel.reset()
    this.#decode()
  }

  save(): Snapshot {
    const { data } = saveState(TYPE, 1, this.#state)
    return { type: TYPE, version: 1, data: { ...data, channel: this.#channel.save().data } }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    this.#channel.restore({ type: 'ide-channel', version: 1, data: data['channel'] as Snapshot['data'] })
    restoreState(snapshot, TYPE, 1, this.#state)
  }

  quiesce(): Promise<void> {
    return this.#channel.quiesce()
  }

  async dispose(): Promise<void> {
    await this.#channel.quiesce()
    await this.#disk.close()
  }
}
