/**
 * The memory of a client as a served device sees it: each access is a message. Reads wait for their reply; writes are posted, as on a bus. Only what
 * the client has mapped for DMA is asked for.
 */

import type { DmaMemory, MemoryLease, MemoryPiece } from '@nonroot/contracts'
import type { Connection } from './connection.ts'
import { Command, DmaBody, DmaFlag, Errno, MAX_DMA_MAPS } from './facts.ts'
import { bodyOf } from './message.ts'

interface Mapping {
  readonly address: number
  readonly length: number
  /** `DmaFlag`s. */
  readonly rights: number
}

/** Writes without a reply yet: above this the device waits for all of them. */
const MOST_POSTED = 256

export class RemoteMemory implements DmaMemory {
  #connection: Connection | undefined
  #limit = 0
  readonly #mappings: Mapping[] = []

  /** The client's, from now on. `limit`: bytes of one transfer. */
  connect(connection: Connection, limit: number): void {
    this.#connection = connection
    this.#limit = limit
  }
  /** Nothing is reachable any more. */
  disconnect(): void {
    this.#connection = undefined
    this.#mappings.length = 0
  }

  /** 0, or an errno. */
  map(address: number, length: number, rights: number): number {
    const end = address + length
    if (length <= 0 || !Number.isSafeInteger(end) || rights === 0) return Errno.EINVAL
    if (this.#mappings.some((other) => address < other.address + other.length && other.address < end))
      return Errno.EEXIST
    if (this.#mappings.length >= MAX_DMA_MAPS) return Errno.ENOSPC
    this.#mappings.push({ address, length, rights })
    return 0
  }

  /** Exactly one mapping. 0, or an errno. */
  unmap(address: number, length: number): number {
    const index = this.#mappings.findIndex((each) => each.address === address && each.length === length)
    if (index < 0) return Errno.ENOENT
    this.#mappings.splice(index, 1)
    return 0
  }

  /** All of it lies in mappings with these rights. */
  #allows(address: number, length: number, rights: number): boolean {
    if (!Number.isSafeInteger(address) || !Number.isSafeInteger(length) || address < 0 || length < 0) return false
    const end = address + length
    for (let at = address; at < end;) {
      const found = this.#mappings.find((each) => at >= each.address && at < each.address + each.length)
      if (!found || (found.rights & rights) !== rights) return false
      at = found.address + found.length
    }
    return this.#connection !== undefined
  }

  isRam(address: number, length: number): boolean {
    return this.#allows(address, length, 0)
  }

  // Reading

  /** Fills all of `into`, or says that it did not. */
  #read(pieces: readonly MemoryPiece[], into: readonly Uint8Array[]): boolean {
    if (!pieces.every(({ address, length }) => this.#allows(address, length, DmaFlag.read))) return false
    const parts = pieces.flatMap(({ address, length }, index) =>
      [...chunks(length, this.#limit)].map(({ from, to }) => ({
        address: address + from,
        part: into[index]!.subarray(from, to),
      })),
    )
    if (parts.length === 0) return true
    const replies = this.#connection!.requestNow(
      parts.map(({ address, part }) => ({
        command: Command.dmaRead,
        body: header(address, part.length, DmaBody.data),
      })),
    )
    return replies.every((reply, index) => {
      const { part } = parts[index]!
      if (!reply || reply.error !== undefined) return false
      if (reply.body.byteLength !== DmaBody.data + part.length) {
        this.#connection?.close(`the peer answered a read of ${part.length} bytes with ${reply.body.byteLength}`)
        return false
      }
      part.set(new Uint8Array(reply.body.buffer, DmaBody.data))
      return true
    })
  }

  #view(address: number, length: number): DataView | undefined {
    const bytes = new Uint8Array(length)
    return this.readBytes(address, bytes) ? new DataView(bytes.buffer) : undefined
  }
  readU8(address: number): number | undefined {
    return this.#view(address, 1)?.getUint8(0)
  }
  readU16(address: number): number | undefined {
    return this.#view(address, 2)?.getUint16(0, true)
  }
  readU32(address: number): number | undefined {
    return this.#view(address, 4)?.getUint32(0, true)
  }
  readU64(address: number): bigint | undefined {
    return this.#view(address, 8)?.getBigUint64(0, true)
  }
  readBytes(address: number, into: Uint8Array): boolean {
    return this.#read([{ address, length: into.length }], [into])
  }

  // Writing

  writeBytes(address: number, from: Uint8Array): boolean {
    if (!this.#allows(address, from.length, DmaFlag.write)) return false
    const connection = this.#connection!
    const messages = [...chunks(from.length, this.#limit)].map((chunk) => {
      const body = header(address + chunk.from, chunk.to - chunk.from, DmaBody.data + chunk.to - chunk.from)
      body.set(from.subarray(chunk.from, chunk.to), DmaBody.data)
      return { command: Command.dmaWrite, body }
    })
    if (connection.inFlight + messages.length > MOST_POSTED) connection.requestNow(messages)
    else for (const { command, body } of messages) connection.request(command, body, posted)
    return connection.closed === undefined
  }
  #writeNumber(address: number, size: number, fill: (view: DataView<ArrayBuffer>) => void): boolean {
    return this.writeBytes(address, bodyOf(size, fill))
  }
  writeU8(address: number, value: number): boolean {
    return this.#writeNumber(address, 1, (view) => view.setUint8(0, value))
  }
  writeU16(address: number, value: number): boolean {
    return this.#writeNumber(address, 2, (view) => view.setUint16(0, value, true))
  }
  writeU32(address: number, value: number): boolean {
    return this.#writeNumber(address, 4, (view) => view.setUint32(0, value, true))
  }
  writeU64(address: number, value: bigint): boolean {
    return this.#writeNumber(address, 8, (view) => view.setBigUint64(0, value, true))
  }
  fill(address: number, length: number, value: number): boolean {
    if (!this.#allows(address, length, DmaFlag.write)) return false
    const bytes = new Uint8Array(Math.min(length, this.#limit)).fill(value)
    return [...chunks(length, this.#limit)].every(({ from, to }) =>
      this.writeBytes(address + from, bytes.subarray(0, to - from)),
    )
  }

  /** A buffer beside the memory: filled now for reading; sent as a whole when a transfer for writing ends, with zeros where it wrote nothing. */
  lease(pieces: readonly MemoryPiece[], access: 'read' | 'write'): MemoryLease | undefined {
    const rights = access === 'read' ? DmaFlag.read : DmaFlag.write
    if (!pieces.every(({ address, length }) => this.#allows(address, length, rights))) return undefined
    const views = pieces.map(({ length }) => new Uint8Array(length))
    if (access === 'read') return this.#read(pieces, views) ? { views, end: () => {} } : undefined
    // Another client may be there when it ends.
    const connection = this.#connection
    const end = (): void => {
      if (this.#connection === connection)
        pieces.forEach(({ address }, index) => this.writeBytes(address, views[index]!))
    }
    return { views, end }
  }
}

const posted = (): void => {}

const header = (address: number, count: number, size: number): Uint8Array =>
  bodyOf(size, (view) => {
    view.setBigUint64(DmaBody.address, BigInt(address), true)
    view.setBigUint64(DmaBody.count, BigInt(count), true)
  })

function* chunks(length: number, limit: number): Generator<{ readonly from: number; readonly to: number }> {
  for (let from = 0; from < length; from += limit) yield { from, to: Math.min(from + limit, length) }
}
