/** A 9P2000.L server over a shared folder: requests in, replies out. Independent of queues. Requests are hostile. */

import type { FolderBackend } from '@nonroot/contracts'
import { ATTRIBUTE_HANDLERS } from './attributes.ts'
import { Fids } from './fids.ts'
import { FILE_HANDLERS } from './files.ts'
import { FOLDER_HANDLERS } from './folders.ts'
import { ERRORS, HEADER_SIZE, Message, ProtocolError, Reader, Writer } from './messages.ts'
import type { Handler, Session } from './session.ts'
import { WALK_HANDLERS } from './walk.ts'

const VERSION = '9P2000.L'
export const MOST_MESSAGE = 512 * 1024
const LEAST_MESSAGE = 4096

export class NinePServer {
  readonly #session: Session
  /** By tag: what a Tflush waits for. Its own answer comes after the one that it flushes. */
  readonly #running = new Map<number, Promise<unknown>>()
  readonly #unanswered = new Set<Promise<unknown>>()
  readonly #handlers: Readonly<Partial<Record<number, Handler>>>

  constructor(folder: FolderBackend) {
    this.#session = { folder, fids: new Fids(), mostMessage: MOST_MESSAGE }
    this.#handlers = {
      ...WALK_HANDLERS,
      ...ATTRIBUTE_HANDLERS,
      ...FILE_HANDLERS,
      ...FOLDER_HANDLERS,
      [Message.version]: (request, reply) => this.#version(request, reply),
      [Message.flush]: async (request) => void (await this.#running.get(request.u16())),
    }
  }

  /** Most bytes of a reply that this request can have. */
  get mostMessage(): number {
    return this.#session.mostMessage
  }

  /** Never rejects: what goes wrong is an Rlerror. */
  answer(request: Uint8Array): Promise<Uint8Array> {
    const answer = this.#answer(request)
    this.#unanswered.add(answer)
    void answer.then(() => this.#unanswered.delete(answer))
    if (request.length < HEADER_SIZE || request[4] === Message.flush) return answer
    const tag = request[5]! | (request[6]! << 8)
    this.#running.set(tag, answer)
    void answer.then(() => {
      if (this.#running.get(tag) === answer) this.#running.delete(tag)
    })
    return answer
  }

  async #answer(request: Uint8Array): Promise<Uint8Array> {
    const reader = new Reader(request, 0)
    let tag = 0xffff
    try {
      const size = reader.u32()
      const type = reader.u8()
      tag = reader.u16()
      if (size > request.length) throw new ProtocolError('EINVAL')
      const handler = this.#handlers[type]
      if (!handler) throw new ProtocolError('EOPNOTSUPP')
      const reply = new Writer()
      await handler(new Reader(request.subarray(0, size), HEADER_SIZE), reply, this.#session)
      return reply.finish(type + 1, tag)
    } catch (error) {
      const code = (error as { code?: unknown }).code
      const number = (typeof code === 'string' ? ERRORS[code] : undefined) ?? ERRORS['EIO']!
      return new Writer().u32(number).finish(Message.error, tag)
    }
  }

  /** The client is gone: once what it asked for is done, nothing stays open. */
  async end(): Promise<void> {
    while (this.#unanswered.size > 0) await Promise.all(this.#unanswered)
    await this.clear()
  }

  clear(): Promise<void> {
    return this.#session.fids.clear()
  }

  async #version(request: Reader, reply: Writer): Promise<void> {
    const most = request.u32()
    const version = request.text()
    await this.clear()
    const agreed = Math.max(LEAST_MESSAGE, Math.min(most, MOST_MESSAGE))
    this.#session.mostMessage = agreed
    reply.u32(agreed).text(version === VERSION && most >= LEAST_MESSAGE ? VERSION : 'unknown')
  }
}
