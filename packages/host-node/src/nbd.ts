/** A disk served by an NBD server: `nbd://HOST:PORT/EXPORT`, `nbd+unix:///EXPORT?socket=PATH`. (NBD, "The NBD protocol") */

import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { NonrootError } from '@nonroot/contracts'
import type { BlockBackend } from '@nonroot/contracts'

const GREETING = 0x4e42444d41474943n // NBDMAGIC
const OPTION = 0x49484156454f5054n // IHAVEOPT
const OPTION_REPLY = 0x3e889045565a9n
const REQUEST = 0x25609513
const REPLY = 0x67446698
const Handshake = { fixedNewstyle: 1, noZeroes: 2 } as const
const Option = { go: 7 } as const
const OptionReply = { acknowledge: 1, info: 3 } as const
const Info = { export: 0, blockSize: 3 } as const
const Flag = { readOnly: 2, flush: 4, trim: 32, writeZeroes: 64 } as const
const Command = { read: 0, write: 1, disconnect: 2, flush: 3, trim: 4, writeZeroes: 6 } as const
const DEFAULT_PORT = 10809
const SECTOR = 512
const MOST_SECTOR = 4096
/** What servers take in one request whatever they say; ours are smaller. */
const MOST_ZEROES = 1 << 30
const CONNECT_MS = 10_000
const LONGEST_OPTION = 1 << 16

/** Bytes of a stream, as many as are asked for at a time. */
class StreamReader {
  #chunks: Buffer[] = []
  #length = 0
  #wanted = 0
  #resolve: (() => void) | undefined
  #error: Error | undefined

  constructor(socket: Socket) {
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#length += chunk.length
      if (this.#length >= this.#wanted) this.#wake()
    })
    socket.on('error', (error) => this.#fail(error))
    socket.on('close', () => this.#fail(new Error('the NBD server closed the connection')))
  }

  #wake(): void {
    this.#resolve?.()
    this.#resolve = undefined
  }

  #fail(error: Error): void {
    this.#error ??= error
    this.#wake()
  }

  async take(length: number): Promise<Buffer> {
    this.#wanted = length
    if (this.#length < length && !this.#error) await new Promise<void>((resolve) => (this.#resolve = resolve))
    if (this.#length < length) throw this.#error ?? new Error('the NBD server closed the connection')
    const all = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    this.#chunks = all.length > length ? [all.subarray(length)] : []
    this.#length -= length
    return all.subarray(0, length)
  }
}

interface Export {
  readonly size: number
  readonly flags: number
  readonly sectorSize: number
}

interface Waiting {
  readonly into: Uint8Array | undefined
  readonly resolve: () => void
  readonly reject: (error: Error) => void
}

export const isNbd = (image: string): boolean => /^nbd(\+unix)?:\/\//i.test(image)

export async function openNbd(image: string, readOnly = false): Promise<BlockBackend> {
  const refuse = (why: string, cause?: unknown): never => {
    const remedy = 'nbd://HOST:PORT/EXPORT or nbd+unix:///EXPORT?socket=PATH names a server that runs'
    throw new NonrootError({
      code: 'host.backend',
      message: `${image}: ${why}`,
      thing: image,
      value: image,
      remedy,
      cause,
    })
  }
  let socket: Socket | undefined
  try {
    const url = new URL(image)
    const path = url.searchParams.get('socket')
    const opened = path
      ? connect({ path })
      : connect({ host: url.hostname || 'localhost', port: Number(url.port) || DEFAULT_PORT })
    socket = opened
    const reader = new StreamReader(opened)
    opened.setTimeout(CONNECT_MS, () => opened.destroy(new Error('the NBD server does not answer')))
    const found = await negotiate(opened, reader, decodeURIComponent(url.pathname.slice(1)))
    opened.setTimeout(0)
    opened.setNoDelay(true)
    if (!readOnly && found.flags & Flag.readOnly)
      throw new Error('the server offers it for reading only; readOnly: true opens it')
    return new NbdDisk(opened, reader, found, readOnly)
  } catch (error) {
    socket?.destroy()
    return refuse(error instanceof Error ? error.message : String(error), error)
  }
}

async function negotiate(socket: Socket, reader: StreamReader, name: string): Promise<Export> {
  const greeting = await reader.take(18)
  if (greeting.readBigUInt64BE(0) !== GREETING || greeting.readBigUInt64BE(8) !== OPTION)
    throw new Error('no NBD server of the new style')
  const flags = greeting.readUInt16BE(16)
  if (!(flags & Handshake.fixedNewstyle)) throw new Error('the NBD server is too old')
  const text = Buffer.from(name)
  const data = Buffer.alloc(4 + text.length + 4)
  data.writeUInt32BE(text.length, 0)
  text.copy(data, 4)
  data.writeUInt16BE(1, 4 + text.length)
  data.writeUInt16BE(Info.blockSize, 6 + text.length)
  const option = Buffer.alloc(4 + 16)
  option.writeUInt32BE(flags & (Handshake.fixedNewstyle | Handshake.noZeroes), 0)
  option.writeBigUInt64BE(OPTION, 4)
  option.writeUInt32BE(Option.go, 12)
  option.writeUInt32BE(data.length, 16)
  socket.write(Buffer.concat([option, data]))
  let found: Export | undefined
  let sectorSize = SECTOR
  for (;;) {
    const reply = await reader.take(20)
    const type = reply.readUInt32BE(12)
    const length = reply.readUInt32BE(16)
    if (reply.readBigUInt64BE(0) !== OPTION_REPLY || length > LONGEST_OPTION)
      throw new Error('the NBD server does not keep to the protocol')
    const body = await reader.take(length)
    if (type === OptionReply.acknowledge) break
    if (type !== OptionReply.info)
      throw new Error(`the NBD server refuses the export "${name}": ${body.toString() || type}`)
    const info = body.readUInt16BE(0)
    if (info === Info.export)
      found = { size: Number(body.readBigUInt64BE(2)), flags: body.readUInt16BE(10), sectorSize }
    if (info === Info.blockSize) sectorSize = Math.max(SECTOR, body.readUInt32BE(2))
  }
  if (!found || !Number.isSafeInteger(found.size) || found.size < SECTOR)
    throw new Error('the NBD server gives no size')
  if (sectorSize > MOST_SECTOR)
    throw new Error(`the NBD server has blocks of ${sectorSize} bytes; ${MOST_SECTOR} at most are known`)
  return { ...found, size: found.size - (found.size % sectorSize), sectorSize }
}

class NbdDisk implements BlockBackend {
  readonly size: number
  readonly sectorSize: number
  readonly readOnly: boolean
  readonly discard?: (offset: number, length: number) => Promise<void>
  readonly writeZeroes?: (offset: number, length: number) => Promise<void>
  readonly #socket: Socket
  readonly #reader: StreamReader
  readonly #flags: number
  readonly #waiting = new Map<bigint, Waiting>()
  #next = 1n
  #broken: Error | undefined

  constructor(socket: Socket, reader: StreamReader, found: Export, readOnly: boolean) {
    this.#socket = socket
    this.#reader = reader
    this.#flags = found.flags
    this.size = found.size
    this.sectorSize = found.sectorSize
    this.readOnly = readOnly
    if (found.flags & Flag.trim) this.discard = (offset, length) => this.#pieces(Command.trim, offset, length)
    if (found.flags & Flag.writeZeroes)
      this.writeZeroes = (offset, length) => this.#pieces(Command.writeZeroes, offset, length)
    void this.#receive()
  }

  async #receive(): Promise<void> {
    try {
      for (;;) {
        const reply = await this.#reader.take(16)
        const cookie = reply.readBigUInt64BE(8)
        const waiting = this.#waiting.get(cookie)
        if (reply.readUInt32BE(0) !== REPLY || !waiting) throw new Error('the NBD server does not keep to the protocol')
        const error = reply.readUInt32BE(4)
        if (error === 0 && waiting.into) waiting.into.set(await this.#reader.take(waiting.into.length))
        this.#waiting.delete(cookie)
        if (error === 0) waiting.resolve()
        else waiting.reject(new Error(`the NBD server answered with error ${error}`))
      }
    } catch (error) {
      this.#broken = error as Error
      this.#socket.destroy()
      for (const { reject } of this.#waiting.values()) reject(this.#broken)
      this.#waiting.clear()
    }
  }

  #request(
    command: number,
    offset: number,
    length: number,
    more: { into?: Uint8Array; from?: Uint8Array } = {},
  ): Promise<void> {
    if (this.#broken) return Promise.reject(this.#broken)
    const cookie = this.#next++
    const header = Buffer.alloc(28)
    header.writeUInt32BE(REQUEST, 0)
    header.writeUInt16BE(command, 6)
    header.writeBigUInt64BE(cookie, 8)
    header.writeBigUInt64BE(BigInt(offset), 16)
    header.writeUInt32BE(length, 24)
    return new Promise((resolve, reject) => {
      this.#waiting.set(cookie, { into: more.into, resolve, reject })
      // Copied: the caller may use its buffer again once the server has answered, but the socket may still hold it after an error.
      this.#socket.write(more.from ? Buffer.concat([header, more.from]) : header)
    })
  }

  read(offset: number, into: Uint8Array): Promise<void> {
    return this.#request(Command.read, offset, into.length, { into })
  }

  write(offset: number, from: Uint8Array): Promise<void> {
    return this.#request(Command.write, offset, from.length, { from })
  }

  async flush(): Promise<void> {
    if (this.#flags & Flag.flush) await this.#request(Command.flush, 0, 0)
  }

  async #pieces(command: number, offset: number, length: number): Promise<void> {
    for (let done = 0; done < length; done += MOST_ZEROES)
      await this.#request(command, offset + done, Math.min(MOST_ZEROES, length - done))
  }

  async close(): Promise<void> {
    if (this.#broken) return
    await this.flush().catch(() => {})
    const header = Buffer.alloc(28)
    header.writeUInt32BE(REQUEST, 0)
    header.writeUInt16BE(Command.disconnect, 6)
    this.#socket.end(header)
    await new Promise<void>((resolve) => {
      this.#socket.once('close', () => resolve())
      setTimeout(() => this.#socket.destroy(), 1000).unref()
    })
  }
}
