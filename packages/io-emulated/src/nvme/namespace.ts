/** The NVM command set over a block back end. Independent of queues and registers. (NVM Express NVM Command Set; Base Specification 1.4, "NVM Command Set") */

import { createDiskCounters, readScattered, writeGathered } from '@nonroot/contracts'
import type { BlockBackend, DeviceContext, DiskCounters, DmaMemory, MemoryLease, MemoryPiece } from '@nonroot/contracts'
import { refused, succeeded } from './command.ts'
import type { Command, Outcome } from './command.ts'
import { DEALLOCATE, FORCE_UNIT_ACCESS, Io, RANGE_SIZE, Status } from './facts.ts'
import { NAMESPACE } from './identify.ts'
import type { Usage } from './identify.ts'
import { prpPieces } from './prp.ts'

/** Bytes moved while the guest waits, for each time a doorbell is rung. */
const MOST_NOW = 1024 * 1024
/** Bytes of zeros written at once. */
const SLICE = 4 * 1024 * 1024
const ALL_NAMESPACES = 0xffff_ffff
const IO_FLAGS_REFUSED = 0xc3

export class Namespace {
  readonly backend: BlockBackend
  readonly #memory: DmaMemory
  readonly #mostTransfer: number
  readonly #log: DeviceContext['log']
  readonly #counters: DiskCounters
  /** The feature "Volatile Write Cache". Off: a write is durable when it completes. */
  writeCache = true
  #now = 0

  constructor(backend: BlockBackend, memory: DmaMemory, mostTransfer: number, context: DeviceContext) {
    this.backend = backend
    this.#memory = memory
    this.#mostTransfer = mostTransfer
    this.#log = context.log
    this.#counters = createDiskCounters(context.metrics, 'command')
  }

  get sectors(): number {
    return Math.floor(this.backend.size / this.backend.sectorSize)
  }

  get usage(): Usage {
    const { reads, writes, bytesRead, bytesWritten, errors } = this.#counters
    return {
      reads: reads.value,
      writes: writes.value,
      bytesRead: bytesRead.value,
      bytesWritten: bytesWritten.value,
      errors: errors.value,
    }
  }

  /** A doorbell was rung: what follows may be done at once, within bounds. */
  begin(): void {
    this.#now = MOST_NOW
  }

  execute(command: Command): Outcome | Promise<Outcome> {
    // Neither fused operations nor SGLs are offered.
    if (command.flags & IO_FLAGS_REFUSED) return refused(Status.invalidField)
    const { opcode, namespace } = command
    if (namespace !== NAMESPACE && !(namespace === ALL_NAMESPACES && opcode === Io.flush))
      return refused(Status.invalidNamespace)
    if (this.backend.readOnly && WRITERS.has(opcode)) return refused(Status.writeProtected)
    switch (opcode) {
      case Io.read:
      case Io.write:
        return this.#move(command)
      case Io.flush:
        return this.#flush()
      case Io.writeZeroes:
        return this.#writeZeroes(command)
      case Io.datasetManagement:
        return this.backend.discard ? this.#datasetManagement(command) : refused(Status.invalidOpcode)
      default:
        return refused(Status.invalidOpcode)
    }
  }

  /** An error of the back end is an error of this command, and the guest's to handle. */
  failed(command: Command, error: unknown): Outcome {
    this.#counters.errors.value++
    this.#log.debug(() => `I/O error: ${error instanceof Error ? error.message : String(error)}`)
    return { status: command.opcode === Io.read ? Status.readError : Status.writeFault, result: 0 }
  }

  /** Bytes, or undefined if the namespace ends before. */
  #range(first: number, sectors: number): { offset: number; length: number } | undefined {
    if (first + sectors > this.sectors) return undefined
    const { sectorSize } = this.backend
    return { offset: first * sectorSize, length: sectors * sectorSize }
  }

  #rangeOf({ words }: Command): { offset: number; length: number } | undefined {
    return this.#range(words[0] + words[1] * 2 ** 32, (words[2] & 0xffff) + 1)
  }

  /** The command's data, lent; or the status that refuses it. */
  #lend(command: Command, length: number, access: 'read' | 'write'): MemoryLease | number {
    const pieces: MemoryPiece[] | number = prpPieces(this.#memory, command.prp1, command.prp2, length)
    if (typeof pieces === 'number') return pieces
    return this.#memory.lease(pieces, access) ?? Status.dataTransfer
  }

  #move(command: Command): Outcome | Promise<Outcome> {
    const range = this.#rangeOf(command)
    if (!range) return refused(Status.lbaRange)
    const { offset, length } = range
    if (length > this.#mostTransfer) return refused(Status.invalidField)
    const reads = command.opcode === Io.read
    const lease = this.#lend(command, length, reads ? 'write' : 'read')
    if (typeof lease === 'number') return refused(lease)
    const durable = !reads && this.#durable(command)
    if (length <= this.#now && !durable) {
      let done = false
      try {
        done =
          (reads ? this.backend.readNow?.(offset, lease.views) : this.backend.writeNow?.(offset, lease.views)) ?? false
      } catch (error) {
        lease.end()
        return this.failed(command, error)
      }
      if (done) {
        lease.end()
        this.#now -= length
        return this.#moved(reads, length)
      }
    }
    return this.#moveBeside(offset, length, lease, reads, durable)
  }

  async #moveBeside(
    offset: number,
    length: number,
    lease: MemoryLease,
    reads: boolean,
    durable: boolean,
  ): Promise<Outcome> {
    try {
      if (reads) await readScattered(this.backend, offset, lease.views)
      else await writeGathered(this.backend, offset, lease.views)
    } finally {
      lease.end()
    }
    if (durable) await this.backend.flush()
    return this.#moved(reads, length)
  }

  #durable({ words }: Command): boolean {
    return !this.writeCache || (words[2] & FORCE_UNIT_ACCESS) !== 0
  }

  #moved(reads: boolean, length: number): Outcome {
    const counters = this.#counters
    if (reads) {
      counters.reads.value++
      counters.bytesRead.value += length
    } else {
      counters.writes.value++
      counters.bytesWritten.value += length
    }
    return succeeded()
  }

  async #flush(): Promise<Outcome> {
    if (!this.backend.readOnly) await this.backend.flush()
    this.#counters.flushes.value++
    return succeeded()
  }

  async #writeZeroes(command: Command): Promise<Outcome> {
    const range = this.#rangeOf(command)
    if (!range) return refused(Status.lbaRange)
    const { offset, length } = range
    const durable = this.#durable(command)
    if (this.backend.writeZeroes) await this.backend.writeZeroes(offset, length)
    else {
      const zeroes = new Uint8Array(Math.min(SLICE, length))
      for (let done = 0; done < length; done += SLICE)
        await this.backend.write(offset + done, zeroes.subarray(0, Math.min(SLICE, length - done)))
    }
    if (durable) await this.backend.flush()
    return succeeded()
  }

  async #datasetManagement(command: Command): Promise<Outcome> {
    const count = (command.words[0] & 0xff) + 1
    const lease = this.#lend(command, count * RANGE_SIZE, 'read')
    if (typeof lease === 'number') return refused(lease)
    const bytes = new Uint8Array(count * RANGE_SIZE)
    let at = 0
    for (const view of lease.views) {
      bytes.set(view, at)
      at += view.length
    }
    lease.end()
    if (!(command.words[1] & DEALLOCATE)) return succeeded()
    const view = new DataView(bytes.buffer)
    const ranges: { offset: number; length: number }[] = []
    for (let entry = 0; entry < bytes.length; entry += RANGE_SIZE) {
      const first = view.getUint32(entry + 8, true) + view.getUint32(entry + 12, true) * 2 ** 32
      const range = this.#range(first, view.getUint32(entry + 4, true))
      if (!range) return refused(Status.lbaRange)
      if (range.length > 0) ranges.push(range)
    }
    for (const { offset, length } of ranges) await this.backend.discard!(offset, length)
    return succeeded()
  }
}

const WRITERS: ReadonlySet<number> = new Set([Io.write, Io.writeZeroes, Io.datasetManagement])
