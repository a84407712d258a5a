/**
 * One parallel ATA channel with one drive: task file, PIO data, interrupt request. DMA is the bus master's responsibility. Independent of PCI.
 *
 *   idle --command--> busy (drive works) --> idle
 *   idle --command--> collecting (PIO out, DRQ) --> busy
 *   busy --> giving (PIO in, DRQ, sector by sector) --> idle
 *   idle --command--> waiting for the bus master (DMA, DRQ) --> busy
 */

import { snapshotData } from '@nonroot/contracts'
import type { IoSize, MemoryLease, Snapshot } from '@nonroot/contracts'
import { SIGNATURE } from '../ata/disk.ts'
import type { AtaDisk, Outcome, Registers } from '../ata/disk.ts'
import type { DataBuffer } from '../ata/buffer.ts'
import { AtaStatus, COMMANDS, READY } from '../ata/facts.ts'
import { assignState, restoreState, saveState } from '../state.ts'
import { Ata, Control, OBSOLETE, SECOND } from './registers.ts'

/** What the bus master does for a command that moves data by DMA. */
export interface DmaEngine {
  /** The guest's buffer, once it has started the transfer in this direction. */
  take(toMemory: boolean): DataBuffer | undefined
  finished(failed: boolean): void
  /** The drive asks for an interrupt. */
  interrupted(): void
}

/** Words between interrupts of a PIO transfer. */
const DATA_BLOCK = 512
const NO_DATA = new Uint8Array(0)
const ALL_ONES = { 1: 0xff, 2: 0xffff, 4: 0xffff_ffff } as const

const TYPE = 'ide-channel'
const powerOn = () => ({
  /** As last written, and before: 48-bit commands take both. */
  features: 0,
  featuresBefore: 0,
  count: SIGNATURE.count as number,
  countBefore: 0,
  lba: new Uint8Array([SIGNATURE.lba, 0, 0]),
  lbaBefore: new Uint8Array(3),
  device: OBSOLETE as number,
  control: 0,
  status: READY as number,
  error: SIGNATURE.error as number,
  interrupt: false,
  command: 0,
  phase: 'idle' as string,
  /** Bytes of the PIO buffer that went over the data register. */
  moved: 0,
})

/** Bytes of the controller's own: PIO. */
class OwnBuffer implements DataBuffer {
  bytes: Uint8Array = NO_DATA

  lease(length: number): MemoryLease {
    if (this.bytes.length !== length) this.bytes = new Uint8Array(length)
    return { views: [this.bytes], end: () => {} }
  }
}

export class IdeChannel {
  readonly #disk: AtaDisk
  readonly #dma: DmaEngine
  readonly #drive: (asserted: boolean) => void
  readonly #state = powerOn()
  readonly #own = new OwnBuffer()
  /** Commands that the drive works on; those of before a reset among them. */
  #active = 0
  #stale = 0
  #era = 0
  #idle: (() => void)[] = []

  constructor(disk: AtaDisk, dma: DmaEngine, drive: (asserted: boolean) => void) {
    this.#disk = disk
    this.#dma = dma
    this.#drive = drive
  }

  // Registers

  read(offset: number, size: IoSize): number {
    if (offset === Ata.data) return this.#readData(size)
    const state = this.#state
    if (offset === Ata.device) return state.device
    // No drive answers at the other address.
    if (state.device & SECOND) return 0
    const before = (state.control & Control.highOrder) !== 0
    switch (offset) {
      case Ata.error:
        return state.error
      case Ata.count:
        return before ? state.countBefore : state.count
      case Ata.status: {
        const status = this.status
        this.#setInterrupt(false)
        return status
      }
      default:
        return (before ? state.lbaBefore : state.lba)[offset - Ata.lbaLow] ?? 0
    }
  }

  /** The alternate status register: looking takes nothing off. */
  get status(): number {
    const { device, status, control } = this.#state
    if (device & SECOND) return 0
    if (control & Control.softReset || this.#stale > 0) return AtaStatus.busy
    return status
  }

  write(offset: number, size: IoSize, value: number): void {
    if (offset === Ata.data) return this.#writeData(size, value)
    const state = this.#state
    const byte = value & 0xff
    if (offset === Ata.device) {
      state.device = byte | OBSOLETE
      return
    }
    if (this.status & AtaStatus.busy) return
    state.control &= ~Control.highOrder
    switch (offset) {
      case Ata.features:
        state.featuresBefore = state.features
        state.features = byte
        break
      case Ata.count:
        state.countBefore = state.count
        state.count = byte
        break
      case Ata.command:
        if (!(state.device & SECOND)) this.#begin(byte)
        break
      default:
        state.lbaBefore[offset - Ata.lbaLow] = state.lba[offset - Ata.lbaLow]!
        state.lba[offset - Ata.lbaLow] = byte
    }
  }

  writeControl(value: number): void {
    const state = this.#state
    const wasReset = state.control & Control.softReset
    state.control = value & (Control.noInterrupt | Control.softReset | Control.highOrder)
    if (state.control & Control.softReset) this.#abandon()
    else if (wasReset) this.#signature()
    this.#drive(state.interrupt && !(state.control & Control.noInterrupt))
  }

  #setInterrupt(on: boolean): void {
    const state = this.#state
    state.interrupt = on
    if (on) this.#dma.interrupted()
    this.#drive(on && !(state.control & Control.noInterrupt))
  }

  // Commands

  #registers(): Registers {
    const { command, features, featuresBefore, lba, lbaBefore, count, countBefore, device } = this.#state
    const word = ([low, mid, high]: Uint8Array): number => low! | (mid! << 8) | (high! << 16)
    return {
      command,
      features: features | (featuresBefore << 8),
      lba: word(lbaBefore) * 2 ** 24 + word(lba),
      count: count | (countBefore << 8),
      device,
    }
  }

  #begin(command: number): void {
    const state = this.#state
    this.#setInterrupt(false)
    state.command = command
    state.error = state.moved = 0
    const protocol = COMMANDS.get(command)?.protocol ?? 'none'
    if (protocol === 'pioOut') {
      this.#own.bytes = new Uint8Array(this.#disk.dataLength(this.#registers()))
      state.phase = 'collecting'
      state.status = READY | AtaStatus.request
    } else if (protocol === 'dmaIn' || protocol === 'dmaOut') {
      state.phase = 'dma'
      state.status = READY | AtaStatus.request
      this.transfer()
    } else this.#execute(this.#own)
  }

  /** The bus master may have begun: move data if drive and bus master are both ready. */
  transfer(): void {
    const state = this.#state
    if (state.phase !== 'dma') return
    const data = this.#dma.take(COMMANDS.get(state.command)?.protocol === 'dmaIn')
    if (data) this.#execute(data)
  }

  #execute(data: DataBuffer): void {
    const state = this.#state
    const dma = state.phase === 'dma'
    state.phase = 'busy'
    state.status = AtaStatus.busy
    const outcome = this.#disk.execute(this.#registers(), data)
    if (!(outcome instanceof Promise)) return this.#finish(outcome, dma)
    const era = this.#era
    this.#active++
    void outcome.then((result) => {
      this.#active--
      if (era !== this.#era) this.#stale--
      else this.#finish(result, dma)
      if (this.#active === 0) for (const resolve of this.#idle.splice(0)) resolve()
    })
  }

  #finish(outcome: Outcome, dma: boolean): void {
    const state = this.#state
    const failed = (outcome.status & AtaStatus.error) !== 0
    this.#show(outcome)
    state.phase = 'idle'
    if (dma) this.#dma.finished(outcome.overflow === true)
    if (!failed && COMMANDS.get(state.command)?.protocol === 'pioIn') {
      state.phase = 'giving'
      state.status = READY | AtaStatus.request
    }
    this.#setInterrupt(true)
  }

  #show({ status, error, lba, count }: Outcome): void {
    const state = this.#state
    state.status = status
    state.error = error
    state.count = count & 0xff
    state.countBefore = (count >> 8) & 0xff
    for (let byte = 0; byte < 3; byte++) {
      state.lba[byte] = Math.floor(lba / 2 ** (8 * byte)) & 0xff
      state.lbaBefore[byte] = Math.floor(lba / 2 ** (8 * byte + 24)) & 0xff
    }
  }

  // The data register

  #readData(size: IoSize): number {
    const state = this.#state
    const { bytes } = this.#own
    if (state.phase !== 'giving') return ALL_ONES[size]
    let value = 0
    for (let byte = 0; byte < size; byte++) value |= (bytes[state.moved + byte] ?? 0) << (8 * byte)
    this.#moved(size)
    return size === 4 ? value >>> 0 : value
  }

  #writeData(size: IoSize, value: number): void {
    const state = this.#state
    if (state.phase !== 'collecting') return
    const { bytes } = this.#own
    for (let byte = 0; byte < size && state.moved + byte < bytes.length; byte++)
      bytes[state.moved + byte] = (value >>> (8 * byte)) & 0xff
    this.#moved(size)
  }

  /** At the end of each block an interrupt, but for the last of a read. */
  #moved(size: number): void {
    const state = this.#state
    const { length } = this.#own.bytes
    const block = Math.floor(state.moved / DATA_BLOCK)
    state.moved = Math.min(state.moved + size, length)
    if (state.moved === length) {
      if (state.phase === 'collecting') this.#execute(this.#own)
      else {
        state.phase = 'idle'
        state.status = READY
      }
    } else if (Math.floor(state.moved / DATA_BLOCK) !== block) this.#setInterrupt(true)
  }

  // Life

  #abandon(): void {
    this.#era++
    this.#stale = this.#active
    this.#own.bytes = NO_DATA
    this.#state.phase = 'idle'
    this.#setInterrupt(false)
  }

  #signature(): void {
    this.#state.device = OBSOLETE
    this.#show(SIGNATURE)
  }

  reset(): void {
    this.#abandon()
    assignState(this.#state, powerOn())
    this.#disk.reset()
    this.#drive(false)
  }

  async quiesce(): Promise<void> {
    if (this.#active > 0) await new Promise<void>((resolve) => this.#idle.push(resolve))
  }

  save(): Snapshot {
    const { data } = saveState(TYPE, 1, this.#state)
    return { type: TYPE, version: 1, data: { ...data, own: this.#own.bytes.slice(), disk: this.#disk.save().data } }
  }

  restore(snapshot: Snapshot): void {
    const data = snapshotData(snapshot, TYPE, 1)
    this.#abandon()
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#own.bytes = (data['own'] as Uint8Array).slice()
    this.#disk.restore({ type: 'ata-disk', version: 1, data: data['disk'] as Snapshot['data'] })
    this.#drive(this.#state.interrupt && !(this.#state.control & Control.noInterrupt))
  }
}
