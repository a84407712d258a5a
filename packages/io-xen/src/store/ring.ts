/** A domain's ring to the store: messages in, answers and watch events out. (Xen, "public/io/xs_wire.h") */

import type { Gpa, DmaMemory, Log, RingBackend } from '@nonroot/contracts'
import type { TwoLevelChannels } from '../event-channels.ts'
import { answer, MESSAGE, type Reply } from './messages.ts'
import type { Store, StoreConnection } from './store.ts'

const SIZE = 1024
const REQUEST = { at: 0, consumer: 2048, producer: 2052 } as const
const RESPONSE = { at: 1024, consumer: 2056, producer: 2060 } as const
export const HEADER = 16
export const LONGEST = 4096
/** Answers that a guest leaves in its ring, in bytes, before nothing more is taken from it. */
const MOST_WAITING = 64 * 1024

export class StoreRing implements RingBackend {
  /** Where it is; undefined where the guest chooses. */
  readonly page: Gpa | undefined
  #port = 0
  readonly #memory: DmaMemory
  readonly #events: TwoLevelChannels
  readonly #store: Store
  readonly #domain: number
  readonly #log: Log
  #connected: Gpa | undefined
  #connection: StoreConnection
  #received = new Uint8Array()
  #waiting: Uint8Array[] = []
  #dead = false

  constructor(
    memory: DmaMemory,
    events: TwoLevelChannels,
    store: Store,
    { domain, log, page }: { readonly domain: number; readonly log: Log; readonly page?: Gpa | undefined },
  ) {
    this.page = page
    this.#memory = memory
    this.#events = events
    this.#store = store
    this.#domain = domain
    this.#log = log
    this.#connection = this.#connect()
  }

  #connect(): StoreConnection {
    return this.#store.connect(this.#domain, (path, token) => {
      this.#send(MESSAGE.watchEvent, 0, 0, `${path}\0${token}\0`)
      this.#flush()
    })
  }

  get port(): number {
    return this.#port
  }

  reset(): void {
    this.#connection.reset()
    this.#connection = this.#connect()
    this.#connected = undefined
    this.#received = new Uint8Array()
    this.#waiting = []
    this.#dead = false
    this.#port = this.#events.allocateLocal(() => this.#onEvent())
  }

  connect(page: Gpa): void {
    this.#connected = page
    this.#flush()
  }

  #onEvent(): void {
    if (this.#connected === undefined || this.#dead) return
    this.#flush()
    while (!this.#dead && this.#waitingBytes < MOST_WAITING && this.#take()) this.#parse()
    this.#flush()
  }

  get #waitingBytes(): number {
    return this.#waiting.reduce((sum, { length }) => sum + length, 0)
  }

  /** What the ring holds now, read once. */
  #take(): boolean {
    const page = this.#connected!
    const producer = this.#memory.readU32(page + REQUEST.producer) ?? 0
    const consumer = this.#memory.readU32(page + REQUEST.consumer) ?? 0
    const count = (producer - consumer) >>> 0
    if (count === 0) return false
    if (count > SIZE) {
      this.#kill('its ring says that it holds more than it can')
      return false
    }
    const start = consumer & (SIZE - 1)
    const head = Math.min(count, SIZE - start)
    const all = new Uint8Array(this.#received.length + count)
    all.set(this.#received)
    this.#memory.readBytes(page + REQUEST.at + start, all.subarray(this.#received.length, this.#received.length + head))
    if (head < count) this.#memory.readBytes(page + REQUEST.at, all.subarray(this.#received.length + head))
    this.#memory.writeU32(page + REQUEST.consumer, producer)
    this.#events.notify(this.#port)
    this.#received = all
    return true
  }

  #parse(): void {
    for (;;) {
      const bytes = this.#received
      if (bytes.length < HEADER) return
      const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength)
      const [type, request, transaction, length] = [0, 4, 8, 12].map((at) => view.getUint32(at, true)) as [
        number,
        number,
        number,
        number,
      ]
      if (length > LONGEST) return this.#kill(`a message of ${length} bytes; ${LONGEST} is the most`)
      if (bytes.length < HEADER + length) return
      const text = latin1.decode(bytes.subarray(HEADER, HEADER + length))
      this.#received = bytes.slice(HEADER + length)
      const reply: Reply = answer(this.#connection, type, transaction, text)
      this.#send(reply.type, request, transaction, reply.text)
      reply.then?.()
    }
  }

  #send(type: number, request: number, transaction: number, text: string): void {
    const body = Uint8Array.from(text, (character) => character.charCodeAt(0))
    // A watch event that is too long is dropped, not cut.
    if (body.length > LONGEST) return
    const message = new Uint8Array(HEADER + body.length)
    const view = new DataView(message.buffer)
    ;[type, request, transaction, body.length].forEach((value, n) => view.setUint32(n * 4, value, true))
    message.set(body, HEADER)
    if (this.#waitingBytes < 2 * MOST_WAITING) this.#waiting.push(message)
  }

  #flush(): void {
    const page = this.#connected
    if (page === undefined || this.#dead || this.#waiting.length === 0) return
    let producer = this.#memory.readU32(page + RESPONSE.producer) ?? 0
    const consumer = this.#memory.readU32(page + RESPONSE.consumer) ?? 0
    const before = producer
    while (this.#waiting.length > 0) {
      const room = SIZE - ((producer - consumer) >>> 0)
      if (room <= 0) break
      const bytes = this.#waiting[0]!
      const start = producer & (SIZE - 1)
      const count = Math.min(room, bytes.length, SIZE - start)
      this.#memory.writeBytes(page + RESPONSE.at + start, bytes.subarray(0, count))
      producer = (producer + count) >>> 0
      if (count === bytes.length) this.#waiting.shift()
      else this.#waiting[0] = bytes.subarray(count)
    }
    if (producer === before) return
    this.#memory.writeU32(page + RESPONSE.producer, producer)
    this.#events.notify(this.#port)
  }

  /** The guest broke the protocol: nothing of its ring is looked at any more. */
  #kill(why: string): void {
    this.#dead = true
    this.#connection.reset()
    this.#log.warn(`the store's ring is closed: ${why}`)
  }
}

const latin1 = new TextDecoder('latin1')
