/** A connection to a peer: requests with their replies, commands of the peer. What commands mean is up to its owner. */

import type { BlockingStream, SocketStream } from '@nonroot/contracts'
import { Errno, MAX_MESSAGE } from './facts.ts'
import { encode, MessageReader } from './message.ts'
import type { Message } from './message.ts'

export interface ConnectionOptions {
  /** A command of the peer. Not called while `requestNow` waits, or before the promise of the last one has settled: commands are served in order. */
  readonly onCommand: (message: Message) => Promise<void> | void
  /** It is over: the peer has gone, or was sent away for this reason. Called once, after the requests in flight were answered with undefined. */
  readonly onClose: (reason: string) => void
  /** A peer that owes replies and sends none for so long is sent away. */
  readonly silentMs?: number
}

type Done = (reply: Message | undefined) => void

const SILENT_MS = 10_000
/** Commands that wait while a reply is waited for: a peer that sends more floods. */
const MOST_QUEUED = 4096
const IDS = 0x1_0000

export class Connection {
  readonly #stream: SocketStream
  readonly #options: ConnectionOptions
  readonly #silentMs: number
  readonly #reader = new MessageReader(MAX_MESSAGE)
  readonly #waiting = new Map<number, { readonly command: number; readonly done: Done }>()
  readonly #commands: Message[] = []
  #nextId = 0
  #closed: string | undefined
  #timer: ReturnType<typeof setTimeout> | undefined
  /** The peer has replied since the timer was started. */
  #heard = false
  #isBlocking = false
  #isServing = false

  constructor(stream: SocketStream, options: ConnectionOptions) {
    this.#stream = stream
    this.#options = options
    this.#silentMs = options.silentMs ?? SILENT_MS
  }

  /** Messages are read from now on. */
  start(): void {
    this.#stream.handle({
      data: (bytes) => this.#receive(bytes),
      end: () => this.close('the peer has closed the connection'),
      close: () => this.close('the peer has gone'),
      taken: () => {},
    })
  }

  /** Why it is over. Undefined: it is not. */
  get closed(): string | undefined {
    return this.#closed
  }
  /** Requests without a reply yet. */
  get inFlight(): number {
    return this.#waiting.size
  }

  close(reason: string): void {
    if (this.#closed !== undefined) return
    this.#closed = reason
    clearTimeout(this.#timer)
    this.#commands.length = 0
    this.#stream.destroy()
    const waiting = [...this.#waiting.values()]
    this.#waiting.clear()
    for (const { done } of waiting) done(undefined)
    this.#options.onClose(reason)
  }

  // Ours

  /** Sends a command; `done` gets its reply, which may be an error, or undefined if none will come. */
  request(command: number, body: Uint8Array, done: Done): void {
    if (this.#closed === undefined && this.#waiting.size >= IDS) this.close(`${IDS} requests without a reply`)
    if (this.#closed !== undefined) return done(undefined)
    while (this.#waiting.has(this.#nextId)) this.#nextId = (this.#nextId + 1) % IDS
    const id = this.#nextId
    this.#nextId = (id + 1) % IDS
    this.#waiting.set(id, { command, done })
    this.#watch()
    this.#stream.write(encode({ id, command, reply: false, noReply: false, error: undefined }, body))
  }

  /** A command that wants no reply. */
  tell(command: number, body: Uint8Array): void {
    if (this.#closed !== undefined) return
    this.#stream.write(encode({ id: 0, command, reply: false, noReply: true, error: undefined }, body))
  }

  /** Sends requests, and does not return before all have their replies or the connection is over. The stream must be a `BlockingStream`. */
  requestNow(requests: readonly { readonly command: number; readonly body: Uint8Array }[]): (Message | undefined)[] {
    const replies = Array.from<Message | undefined>({ length: requests.length })
    let left = requests.length
    const outer = this.#isBlocking
    this.#isBlocking = true
    requests.forEach(({ command, body }, index) =>
      this.request(command, body, (reply) => {
        replies[index] = reply
        left--
      }),
    )
    const end = performance.now() + this.#silentMs
    while (left > 0) {
      const remaining = end - performance.now()
      if (remaining <= 0 || !(this.#stream as BlockingStream).wait(remaining)) this.close(this.#silence())
    }
    this.#isBlocking = outer
    if (!outer && this.#commands.length > 0) queueMicrotask(() => this.#serve())
    return replies
  }

  // The peer's

  reply(to: Message, body: Uint8Array = new Uint8Array(0)): void {
    if (this.#closed !== undefined || to.noReply) return
    this.#stream.write(encode({ ...to, reply: true, noReply: false, error: undefined }, body))
  }

  refuse(to: Message, errno: number = Errno.EINVAL): void {
    if (this.#closed !== undefined || to.noReply) return
    this.#stream.write(encode({ ...to, reply: true, noReply: false, error: errno }))
  }

  #receive(bytes: Uint8Array): void {
    if (this.#closed !== undefined) return
    const messages = this.#reader.push(bytes)
    if (typeof messages === 'string') return this.close(`the peer sent ${messages}`)
    for (const message of messages) {
      if (message.reply) this.#settle(message)
      else this.#commands.push(message)
    }
    if (!this.#isBlocking) this.#serve()
    if (this.#commands.length > MOST_QUEUED)
      this.close(`the peer sent ${this.#commands.length} commands without waiting for a reply`)
  }

  #settle(message: Message): void {
    const waiting = this.#waiting.get(message.id)
    if (waiting?.command !== message.command) {
      const what = waiting ? `to command ${waiting.command}` : 'to nothing that was asked'
      return this.close(`the peer sent reply ${message.id} of command ${message.command} ${what}`)
    }
    this.#waiting.delete(message.id)
    this.#heard = true
    waiting.done(message)
  }

  /** One after the other, also where serving one makes others arrive. */
  #serve(): void {
    if (this.#isServing) return
    this.#isServing = true
    for (let next = this.#commands.shift(); next; next = this.#commands.shift()) {
      const later = this.#options.onCommand(next)
      if (!later) continue
      void later.then(() => {
        this.#isServing = false
        if (!this.#isBlocking) this.#serve()
      })
      return
    }
    this.#isServing = false
  }

  #watch(): void {
    if (this.#timer !== undefined) return
    this.#heard = false
    this.#timer = setTimeout(() => {
      this.#timer = undefined
      if (this.#waiting.size === 0) return
      if (this.#heard) this.#watch()
      else this.close(this.#silence())
    }, this.#silentMs)
  }
  #silence(): string {
    return `the peer has been silent for ${this.#silentMs / 1000} s, with ${this.#waiting.size} requests to reply to`
  }
}
