/** One message: header and body, to and from bytes. */

import { Header, HEADER_SIZE, HeaderFlag } from './facts.ts'

export interface Message {
  readonly id: number
  readonly command: number
  readonly reply: boolean
  readonly noReply: boolean
  /** Of a reply: the command failed, with this errno, which may be 0. Undefined: it did not fail. */
  readonly error: number | undefined
  /** A copy. */
  readonly body: DataView<ArrayBuffer>
}

export function encode(message: Omit<Message, 'body'>, body: Uint8Array = new Uint8Array(0)): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(HEADER_SIZE + body.length)
  const view = new DataView(bytes.buffer)
  const { id, command, reply, noReply, error } = message
  view.setUint16(Header.id, id, true)
  view.setUint16(Header.command, command, true)
  view.setUint32(Header.size, bytes.length, true)
  const type = reply ? HeaderFlag.reply : HeaderFlag.command
  const failed = error === undefined ? 0 : HeaderFlag.error
  view.setUint32(Header.flags, type | (noReply ? HeaderFlag.noReply : 0) | failed, true)
  view.setUint32(Header.error, error ?? 0, true)
  bytes.set(body, HEADER_SIZE)
  return bytes
}

/** A body of that size, written by `fill`. */
export function bodyOf(size: number, fill: (view: DataView<ArrayBuffer>) => void): Uint8Array<ArrayBuffer> {
  const view = new DataView(new ArrayBuffer(size))
  fill(view)
  return new Uint8Array(view.buffer)
}

/** Puts messages together from what a stream brings. */
export class MessageReader {
  readonly #largest: number
  #bytes = new Uint8Array(4096)
  #length = 0

  /** `largest`: in bytes, header included. */
  constructor(largest: number) {
    this.#largest = largest
  }

  /** The messages that are complete now, in order. A text: the stream is not one of messages, and nothing of it can be used any more. */
  push(bytes: Uint8Array): Message[] | string {
    this.#append(bytes)
    const messages: Message[] = []
    let at = 0
    while (this.#length - at >= HEADER_SIZE) {
      const view = new DataView(this.#bytes.buffer, at, HEADER_SIZE)
      const size = view.getUint32(Header.size, true)
      if (size < HEADER_SIZE || size > this.#largest)
        return `a message of ${size} bytes, where ${HEADER_SIZE} to ${this.#largest} are allowed`
      const flags = view.getUint32(Header.flags, true)
      const type = flags & HeaderFlag.type
      if (type > HeaderFlag.reply) return `a message of type ${type}, which is neither command nor reply`
      if (this.#length - at < size) break
      messages.push({
        id: view.getUint16(Header.id, true),
        command: view.getUint16(Header.command, true),
        reply: type === HeaderFlag.reply,
        noReply: (flags & HeaderFlag.noReply) !== 0,
        error: flags & HeaderFlag.error ? view.getUint32(Header.error, true) : undefined,
        body: new DataView(this.#bytes.slice(at + HEADER_SIZE, at + size).buffer),
      })
      at += size
    }
    this.#bytes.copyWithin(0, at, this.#length)
    this.#length -= at
    return messages
  }

  #append(bytes: Uint8Array): void {
    const needed = this.#length + bytes.length
    if (needed > this.#bytes.length) {
      const larger = new Uint8Array(2 ** Math.ceil(Math.log2(needed)))
      larger.set(this.#bytes.subarray(0, this.#length))
      this.#bytes = larger
    }
    this.#bytes.set(bytes, this.#length)
    this.#length = needed
  }
}
