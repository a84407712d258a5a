/** The vfio-user protocol as bytes, for tests of either side: numbers of the specification, messages, streams without sockets. Shares nothing with an implementation. */

import type { BlockingStream, StreamHandlers } from '@nonroot/contracts'
import { check } from '../check.ts'

export const VfioUser = {
  version: 1,
  dmaMap: 2,
  dmaUnmap: 3,
  deviceGetInfo: 4,
  deviceGetRegionInfo: 5,
  deviceGetRegionIoFds: 6,
  deviceGetIrqInfo: 7,
  deviceSetIrqs: 8,
  regionRead: 9,
  regionWrite: 10,
  dmaRead: 11,
  dmaWrite: 12,
  deviceReset: 13,
  /** nonroot's own. */
  interrupt: 0x8001,
} as const
export const VfioErrno = { ENOENT: 2, EFAULT: 14, EEXIST: 17, EINVAL: 22, ENOTSUP: 95 } as const

export interface VfioMessage {
  readonly id: number
  readonly command: number
  readonly flags: number
  readonly error: number
  readonly body: Uint8Array
}

/** Fields of a body, in order: bytes and value. */
export type Field = readonly [size: 1 | 2 | 4 | 8, value: number]

export function fieldsOf(...fields: readonly Field[]): Uint8Array {
  const bytes = new Uint8Array(fields.reduce((sum, [size]) => sum + size, 0))
  const view = new DataView(bytes.buffer)
  let at = 0
  for (const [size, value] of fields) {
    if (size === 8) view.setBigUint64(at, BigInt(value), true)
    else if (size === 4) view.setUint32(at, value, true)
    else if (size === 2) view.setUint16(at, value, true)
    else view.setUint8(at, value)
    at += size
  }
  return bytes
}

/** Values of the fields of those sizes, from the start of a body. */
export function readFields(body: Uint8Array, ...sizes: readonly (1 | 2 | 4 | 8)[]): number[] {
  const view = new DataView(body.buffer, body.byteOffset, body.length)
  let at = 0
  return sizes.map((size) => {
    check(at + size <= body.length, `a body of ${body.length} bytes has no field of ${size} at ${at}`)
    const value =
      size === 8
        ? Number(view.getBigUint64(at, true))
        : size === 4
          ? view.getUint32(at, true)
          : size === 2
            ? view.getUint16(at, true)
            : view.getUint8(at)
    at += size
    return value
  })
}

export function messageBytes({ id, command, flags, error, body }: VfioMessage, size = 16 + body.length): Uint8Array {
  const bytes = new Uint8Array(16 + body.length)
  bytes.set(fieldsOf([2, id], [2, command], [4, size], [4, flags], [4, error]))
  bytes.set(body, 16)
  return bytes
}

/** What VERSION carries. */
export function versionBody(major: number, minor: number, data?: unknown): Uint8Array {
  const text = data === undefined ? new Uint8Array(0) : new TextEncoder().encode(`${JSON.stringify(data)}\0`)
  const bytes = new Uint8Array(4 + text.length)
  bytes.set(fieldsOf([2, major], [2, minor]))
  bytes.set(text, 4)
  return bytes
}

class PairEnd implements BlockingStream {
  other!: PairEnd
  readonly queue: Uint8Array[] = []
  #handlers: StreamHandlers | undefined
  isOver = false
  #told = false

  handle(handlers: StreamHandlers): void {
    this.#handlers = handlers
    queueMicrotask(() => this.deliverAll())
  }
  write(bytes: Uint8Array): void {
    if (this.isOver) return
    this.other.queue.push(bytes.slice())
    queueMicrotask(() => this.other.deliverAll())
  }
  /** The oldest chunk, or the end. False: there is neither. */
  deliver(): boolean {
    if (!this.#handlers) return false
    const next = this.queue.shift()
    if (next) this.#handlers.data(next)
    else if (this.isOver && !this.#told) {
      this.#told = true
      this.#handlers.close()
    } else return false
    return true
  }
  deliverAll(): void {
    while (this.deliver());
  }
  wait(): boolean {
    while (!this.deliver()) if (!this.other.deliver()) return false
    return true
  }
  end(): void {
    this.destroy()
  }
  pause(): void {}
  resume(): void {}
  destroy(): void {
    for (const end of [this, this.other]) {
      end.isOver = true
      queueMicrotask(() => end.deliverAll())
    }
  }
}

/** Two ends of a stream, without a socket. `wait` gives the other end its turn, and does not wait where that brings nothing. */
export function createStreamPair(): [BlockingStream, BlockingStream] {
  const [one, other] = [new PairEnd(), new PairEnd()]
  one.other = other
  other.other = one
  return [one, other]
}

/** One end of a connection, byte by byte: sends what a test wants, right or wrong, and keeps what comes. */
export class RawPeer {
  readonly received: VfioMessage[] = []
  /** Called for each command of the other side. */
  onCommand: (message: VfioMessage) => void = () => {}
  closed = false
  readonly #stream: Pick<BlockingStream, 'handle' | 'write' | 'destroy'>
  #bytes = new Uint8Array(0)
  #nextId = 1
  readonly #waiting: (() => void)[] = []

  constructor(stream: Pick<BlockingStream, 'handle' | 'write' | 'destroy'>) {
    this.#stream = stream
    stream.handle({
      data: (bytes) => this.#take(bytes),
      end: () => this.#end(),
      close: () => this.#end(),
      taken: () => {},
    })
  }

  #end(): void {
    this.closed = true
    for (const wake of this.#waiting.splice(0)) wake()
  }

  #take(bytes: Uint8Array): void {
    const all = new Uint8Array(this.#bytes.length + bytes.length)
    all.set(this.#bytes)
    all.set(bytes, this.#bytes.length)
    let at = 0
    while (all.length - at >= 16) {
      const [id, command, size, flags, error] = readFields(all.subarray(at), 2, 2, 4, 4, 4) as [
        number,
        number,
        number,
        number,
        number,
      ]
      check(size >= 16, `a message of ${size} bytes`)
      if (all.length - at < size) break
      const message = { id, command, flags, error, body: all.slice(at + 16, at + size) }
      at += size
      if (flags & 0xf) this.received.push(message)
      else this.onCommand(message)
    }
    this.#bytes = all.slice(at)
    for (const wake of this.#waiting.splice(0)) wake()
  }

  send(message: Partial<VfioMessage> & Pick<VfioMessage, 'command'>): number {
    const id = message.id ?? this.#nextId++
    this.#stream.write(messageBytes({ flags: 0, error: 0, body: new Uint8Array(0), ...message, id }))
    return id
  }
  sendBytes(bytes: Uint8Array): void {
    this.#stream.write(bytes)
  }
  reply(to: VfioMessage, body: Uint8Array = new Uint8Array(0)): void {
    this.send({ id: to.id, command: to.command, flags: 1, body })
  }
  refuse(to: VfioMessage, error: number): void {
    this.send({ id: to.id, command: to.command, flags: 0x21, error })
  }
  close(): void {
    this.#stream.destroy()
  }

  /** The next reply. Undefined: the connection is over. */
  async next(): Promise<VfioMessage | undefined> {
    while (this.received.length === 0 && !this.closed) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    return this.received.shift()
  }
  /** Sends a command; its reply, which is the next one. */
  async ask(command: number, body: Uint8Array = new Uint8Array(0)): Promise<VfioMessage> {
    const id = this.send({ command, body })
    const reply = await this.next()
    check(reply, `command ${command}: the connection is over`)
    check(
      reply.id === id && reply.command === command,
      `command ${command}, ID ${id}: reply of ${reply.command}, ID ${reply.id}`,
    )
    check((reply.flags & 0xf) === 1, `command ${command}: flags ${reply.flags}`)
    return reply
  }
}
