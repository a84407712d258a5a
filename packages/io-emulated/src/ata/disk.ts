/** An ATA disk over a block back end: executes a command given by its registers, and returns the registers after it. Independent of controllers and interrupts. */

import { createDiskCounters, readScattered, writeGathered } from '@nonroot/contracts'
import type { BlockBackend, DiskCounters, Log, Metrics, Snapshot } from '@nonroot/contracts'
import { restoreState, saveState } from '../state.ts'
import { bufferBytes, fillBuffer } from './buffer.ts'
import type { DataBuffer } from './buffer.ts'
import { AtaError, AtaFeature, AtaLog, AtaStatus, BLOCK, COMMANDS, LBA_MODE, QUEUED_FUA, READY } from './facts.ts'
import type { Action, CommandRow } from './facts.ts'
import { HEADS, identifyData, SECTORS_PER_TRACK, TRIM_BLOCKS } from './identify.ts'

/** The registers that a command is made of, high-order bytes put to their low ones. */
export interface Registers {
  readonly command: number
  readonly features: number
  readonly lba: number
  readonly count: number
  readonly device: number
}

/** What the registers are afterwards. */
export interface Outcome {
  readonly status: number
  readonly error: number
  readonly lba: number
  readonly count: number
  /** Bytes of data that went over. */
  readonly bytes: number
  /** The scatter list has less room than the command has data. */
  readonly overflow?: boolean
}

export interface AtaDiskOptions {
  readonly serial: string
  readonly queueDepth: number
}

/** Bytes that a command may move while the guest waits, if the back end can: about a tenth of a millisecond. */
const MOST_NOW = 1024 * 1024
/** Entries of 8 bytes: a sector (48 bits) and how many (16). ("DATA SET MANAGEMENT") */
const RANGE = 8
/** A count of 0 stands for this many. */
const MOST = { short: 256, extended: 65_536 } as const
/** CHECK POWER MODE: active or idle. */
const ACTIVE = 0xff
const MOST_ULTRA_DMA = 6
const TransferMode = { kind: 0xf8, multiword: 0x20, ultra: 0x40 } as const
/** After reset or EXECUTE DEVICE DIAGNOSTIC: passed, and a disk. ("Device signatures") */
export const SIGNATURE = { status: READY, error: 0x01, lba: 0x01, count: 0x01, bytes: 0 } as const

const TYPE = 'ata-disk'
const powerOn = () => ({
  writeCache: true,
  lookAhead: true,
  ultraDma: MOST_ULTRA_DMA,
  /** How an address of cylinder, head and sector is taken. */
  heads: HEADS as number,
  sectorsPerTrack: SECTORS_PER_TRACK as number,
  /** Of the last queued command that failed, for the log: its tag or -1, and registers. */
  failedTag: -1,
  failedStatus: 0,
  failedError: 0,
  failedLba: 0,
  failedCount: 0,
})

export class AtaDisk {
  readonly #backend: BlockBackend
  readonly #options: AtaDiskOptions
  readonly #log: Log
  readonly #state = powerOn()
  readonly #counters: DiskCounters
  readonly #actions: Readonly<Record<Action, Run>>

  constructor(backend: BlockBackend, options: AtaDiskOptions, context: { metrics: Metrics; log: Log }) {
    this.#backend = backend
    this.#options = options
    this.#log = context.log
    this.#counters = createDiskCounters(context.metrics, 'command')
    this.#actions = {
      identify: (_row, registers, data) => this.#give(registers, data, this.#identify()),
      read: (row, registers, data) => this.#read(row, registers, data),
      write: (row, registers, data) => this.#write(row, registers, data),
      verify: (row, registers) => this.#verify(row, registers),
      flush: (_row, registers) => this.#flush(registers),
      trim: (_row, registers, data) => this.#trim(registers, data),
      setFeatures: (_row, registers) => this.#setFeatures(registers),
      setGeometry: (_row, registers) => this.#setGeometry(registers),
      readLog: (_row, registers, data) => this.#readLog(registers, data),
      diagnose: () => SIGNATURE,
      checkPower: (_row, registers) => ({ ...done(registers), count: ACTIVE }),
      nothing: (_row, registers) => done(registers),
    }
  }

  get sectors(): number {
    return Math.floor(this.#backend.size / this.#backend.sectorSize)
  }

  /** Bytes of data that a command has, as far as its registers say. */
  dataLength(registers: Registers): number {
    const row = COMMANDS.get(registers.command)
    if (!row || row.protocol === 'none') return 0
    if (row.action === 'read' || row.action === 'write')
      return this.#sectorsOf(row, registers) * this.#backend.sectorSize
    return row.extended ? registers.count * BLOCK : BLOCK
  }

  #sectorsOf(row: CommandRow, { count, features }: Registers): number {
    const counted = row.queued ? features : row.extended ? count : count & 0xff
    return counted || (row.extended ? MOST.extended : MOST.short)
  }

  /** At once for what needs no back end. Never rejects. */
  execute(registers: Registers, data: DataBuffer): Outcome | Promise<Outcome> {
    const row = COMMANDS.get(registers.command)
    if (!row || (row.queued && this.#options.queueDepth === 0)) return this.#failed(registers, AtaError.aborted)
    const outcome = this.#actions[row.action](row, registers, data)
    if (!(outcome instanceof Promise)) return outcome
    return outcome.catch((error: unknown) => this.#faulted(row, registers, error))
  }

  /** The back end failed. Reads say where; of writes and flushes a drive says that it is at fault. */
  #faulted(row: CommandRow, registers: Registers, error: unknown): Outcome {
    this.#log.debug(() => `${row.name} failed: ${error instanceof Error ? error.message : String(error)}`)
    if (row.action === 'read') return this.#failed(registers, AtaError.uncorrectable)
    return { ...this.#failed(registers, AtaError.aborted), status: READY | AtaStatus.error | AtaStatus.fault }
  }

  #failed(registers: Registers, error: number, overflow = false): Outcome {
    this.#counters.errors.value++
    const status = READY | AtaStatus.error
    return { status, error, lba: registers.lba, count: registers.count & 0xff, bytes: 0, overflow }
  }

  /** A queued command failed: the log says which, until it is read. */
  noteQueuedError(tag: number, { status, error, lba, count }: Outcome): void {
    Object.assign(this.#state, {
      failedTag: tag,
      failedStatus: status,
      failedError: error,
      failedLba: lba,
      failedCount: count,
    })
  }

  // Data

  /** Where a command's sectors are, in bytes; undefined if the disk ends before. */
  #range(row: CommandRow, registers: Registers): { offset: number; length: number } | undefined {
    const first = this.#firstSector(row, registers)
    const sectors = this.#sectorsOf(row, registers)
    const { sectorSize } = this.#backend
    if (first === undefined || first + sectors > this.sectors) return undefined
    return { offset: first * sectorSize, length: sectors * sectorSize }
  }

  /** Undefined for an address that no sector has. */
  #firstSector({ extended }: CommandRow, { device, lba }: Registers): number | undefined {
    const high = device & 0xf
    if (device & LBA_MODE) return extended ? lba : (lba % 2 ** 24) + high * 2 ** 24
    if (extended) return undefined
    // Sector (from 1) and cylinder are where the low bits of an LBA are, the head where its highest are.
    const { heads, sectorsPerTrack } = this.#state
    const sector = lba & 0xff
    if (sector === 0 || sector > sectorsPerTrack || high >= heads) return undefined
    const cylinder = (lba >>> 8) & 0xffff
    return (cylinder * heads + high) * sectorsPerTrack + sector - 1
  }

  #read(row: CommandRow, registers: Registers, data: DataBuffer): Outcome | Promise<Outcome> {
    const range = this.#range(row, registers)
    if (!range) return this.#failed(registers, AtaError.idNotFound)
    const lease = data.lease(range.length, 'write')
    if (!lease) return this.#failed(registers, AtaError.aborted, true)
    if (range.length <= MOST_NOW && this.#backend.readNow) {
      try {
        if (this.#backend.readNow(range.offset, lease.views)) {
          lease.end()
          return this.#didRead(registers, range.length)
        }
      } catch (error) {
        lease.end()
        return this.#faulted(row, registers, error)
      }
    }
    return readScattered(this.#backend, range.offset, lease.views)
      .finally(() => lease.end())
      .then(() => this.#didRead(registers, range.length))
  }

  #didRead(registers: Registers, length: number): Outcome {
    this.#counters.reads.value++
    this.#counters.bytesRead.value += length
    return done(registers, length)
  }

  #write(row: CommandRow, registers: Registers, data: DataBuffer): Outcome | Promise<Outcome> {
    if (this.#backend.readOnly) return this.#failed(registers, AtaError.aborted)
    const range = this.#range(row, registers)
    if (!range) return this.#failed(registers, AtaError.idNotFound)
    const lease = data.lease(range.length, 'read')
    if (!lease) return this.#failed(registers, AtaError.aborted, true)
    const durable = row.forceUnitAccess || (row.queued && registers.device & QUEUED_FUA) || !this.#state.writeCache
    if (range.length <= MOST_NOW && !durable && this.#backend.writeNow) {
      try {
        if (this.#backend.writeNow(range.offset, lease.views)) {
          lease.end()
          return this.#didWrite(registers, range.length)
        }
      } catch (error) {
        lease.end()
        return this.#faulted(row, registers, error)
      }
    }
    return writeGathered(this.#backend, range.offset, lease.views)
      .finally(() => lease.end())
      .then(() => (durable ? this.#backend.flush() : undefined))
      .then(() => this.#didWrite(registers, range.length))
  }

  #didWrite(registers: Registers, length: number): Outcome {
    this.#counters.writes.value++
    this.#counters.bytesWritten.value += length
    return done(registers, length)
  }

  #verify(row: CommandRow, registers: Registers): Outcome {
    return this.#range(row, registers) ? done(registers) : this.#failed(registers, AtaError.idNotFound)
  }

  async #flush(registers: Registers): Promise<Outcome> {
    if (!this.#backend.readOnly) await this.#backend.flush()
    this.#counters.flushes.value++
    return done(registers)
  }

  async #trim(registers: Registers, data: DataBuffer): Promise<Outcome> {
    const { count, features } = registers
    const refused = !this.#canTrim || !(features & AtaFeature.trim) || count === 0 || count > TRIM_BLOCKS
    const ranges = refused ? undefined : bufferBytes(data, count * BLOCK)
    if (!ranges) return this.#failed(registers, AtaError.aborted, !refused)
    const view = new DataView(ranges.buffer)
    const { sectorSize } = this.#backend
    const wanted: { lba: number; sectors: number }[] = []
    for (let at = 0; at < ranges.length; at += RANGE) {
      const lba = view.getUint32(at, true) + view.getUint16(at + 4, true) * 2 ** 32
      const sectors = view.getUint16(at + 6, true)
      if (lba + sectors > this.sectors) return this.#failed(registers, AtaError.idNotFound)
      if (sectors > 0) wanted.push({ lba, sectors })
    }
    for (const { lba, sectors } of wanted) await this.#backend.discard!(lba * sectorSize, sectors * sectorSize)
    return done(registers, ranges.length)
  }

  get #canTrim(): boolean {
    return this.#backend.discard !== undefined && !this.#backend.readOnly
  }

  // What a drive says of itself

  #give(registers: Registers, data: DataBuffer, bytes: Uint8Array): Outcome {
    return fillBuffer(data, bytes) ? done(registers, bytes.length) : this.#failed(registers, AtaError.aborted, true)
  }

  #identify(): Uint8Array {
    const { serial, queueDepth } = this.#options
    const { sectorSize } = this.#backend
    return identifyData({ sectors: this.sectors, sectorSize, serial, queueDepth, trim: this.#canTrim, ...this.#state })
  }

  #setFeatures(registers: Registers): Outcome {
    const state = this.#state
    switch (registers.features & 0xff) {
      case AtaFeature.writeCacheOn:
      case AtaFeature.writeCacheOff:
        state.writeCache = (registers.features & 0xff) === AtaFeature.writeCacheOn
        return done(registers)
      case AtaFeature.lookAheadOn:
      case AtaFeature.lookAheadOff:
        state.lookAhead = (registers.features & 0xff) === AtaFeature.lookAheadOn
        return done(registers)
      case AtaFeature.transferMode: {
        const kind = registers.count & TransferMode.kind
        const mode = registers.count & 7
        if (kind > TransferMode.ultra || (kind === TransferMode.ultra && mode > MOST_ULTRA_DMA)) break
        if (kind >= TransferMode.multiword) state.ultraDma = kind === TransferMode.ultra ? mode : -1
        return done(registers)
      }
    }
    return this.#failed(registers, AtaError.aborted)
  }

  #setGeometry(registers: Registers): Outcome {
    const sectorsPerTrack = registers.count & 0xff
    if (sectorsPerTrack === 0) return this.#failed(registers, AtaError.aborted)
    Object.assign(this.#state, { heads: (registers.device & 0xf) + 1, sectorsPerTrack })
    return done(registers)
  }

  #readLog(registers: Registers, data: DataBuffer): Outcome {
    const { lba, count } = registers
    const log = lba & 0xff
    const page = (Math.floor(lba / 0x100) & 0xff) | ((Math.floor(lba / 2 ** 32) & 0xff) << 8)
    const bytes = new Uint8Array(BLOCK)
    const view = new DataView(bytes.buffer)
    if (count !== 1 || page !== 0) return this.#failed(registers, AtaError.aborted)
    if (log === AtaLog.directory) {
      view.setUint16(0, 1, true) // version
      if (this.#options.queueDepth > 0) view.setUint16(AtaLog.queuedError * 2, 1, true)
    } else if (log === AtaLog.queuedError && this.#options.queueDepth > 0) this.#queuedErrorLog(bytes)
    else return this.#failed(registers, AtaError.aborted)
    return this.#give(registers, data, bytes)
  }

  /** "Queued Error log": reading it takes the error off. */
  #queuedErrorLog(bytes: Uint8Array): void {
    const state = this.#state
    const { failedTag, failedLba } = state
    bytes[0] = failedTag < 0 ? 0x80 : failedTag
    if (failedTag >= 0) {
      bytes[2] = state.failedStatus
      bytes[3] = state.failedError
      putLba(bytes, 4, failedLba)
      bytes[7] = LBA_MODE
      bytes[12] = state.failedCount
    }
    bytes[BLOCK - 1] = -bytes.reduce((sum, byte) => sum + byte, 0) & 0xff
    state.failedTag = -1
  }

  // Life

  reset(): void {
    Object.assign(this.#state, powerOn())
  }

  save(): Snapshot {
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
  }

  close(): Promise<void> {
    return this.#backend.close()
  }
}

type Run = (row: CommandRow, registers: Registers, data: DataBuffer) => Outcome | Promise<Outcome>

const done = ({ lba }: Registers, bytes = 0): Outcome => ({ status: READY, error: 0, lba, count: 0, bytes })

/** A 48-bit address as FISes and logs have it: bits 0 to 23 at `at`, the others four bytes on. */
export function putLba(bytes: Uint8Array, at: number, lba: number): void {
  for (let byte = 0; byte < 6; byte++) bytes[at + byte + (byte > 2 ? 1 : 0)] = Math.floor(lba / 2 ** (8 * byte)) & 0xff
}
