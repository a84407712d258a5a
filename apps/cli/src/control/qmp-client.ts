/** The client's side of a control socket: used by `nonroot ps` and similar commands. */

import { connect } from 'node:net'
import type { Socket } from 'node:net'
import { JsonStream } from './json-stream.ts'
import type { QmpEvent } from './qmp-session.ts'

/** How long a host may take to answer. */
const PATIENCE_MS = 10_000

interface Message extends Partial<QmpEvent> {
  readonly QMP?: unknown
  readonly return?: unknown
  readonly error?: { readonly class: string; readonly desc: string }
}

export class QmpClient {
  /** Settles when the connection has ended, from either side. */
  readonly closed: Promise<void>
  readonly #socket: Socket
  readonly #stream = new JsonStream(Infinity)
  readonly #waiting: ((message: Message) => void)[] = []
  readonly #listeners = new Set<(event: QmpEvent) => void>()

  private constructor(socket: Socket) {
    this.#socket = socket
    this.closed = new Promise((resolve) => socket.on('close', () => resolve()))
    socket.on('error', () => {})
    socket.on('data', (chunk) => {
      for (const piece of this.#stream.feed(chunk)) {
        if (piece.kind !== 'object') return void socket.destroy()
        const message = JSON.parse(piece.text) as Message
        if (message.event !== undefined) this.#listeners.forEach((listener) => listener(message as QmpEvent))
        else this.#waiting.shift()?.(message)
      }
    })
  }

  /** Negotiated. Rejects where no process listens. */
  static async connect(path: string): Promise<QmpClient> {
    const socket = connect(path)
    await new Promise<void>((resolve, reject) => {
      socket.once('connect', resolve)
      socket.once('error', reject)
    })
    const client = new QmpClient(socket)
    await client.#next()
    await client.execute('qmp_capabilities')
    return client
  }

  /** Gives what the command returns; rejects with the words of its refusal. */
  async execute(name: string, given?: Readonly<Record<string, unknown>>): Promise<unknown> {
    this.#socket.write(`${JSON.stringify({ execute: name, ...(given ? { arguments: given } : {}) })}\n`)
    const answer = await this.#next()
    if (answer.error) throw new Error(answer.error.desc)
    return answer.return
  }

  onEvent(listener: (event: QmpEvent) => void): void {
    this.#listeners.add(listener)
  }

  async #next(): Promise<Message> {
    let timer: NodeJS.Timeout | undefined
    const lost = this.closed.then((): never => {
      throw new Error('the host has gone')
    })
    const late = new Promise<never>((_, reject) => {
      timer = setTimeout(() => reject(new Error(`the host did not answer in ${PATIENCE_MS / 1000} s`)), PATIENCE_MS)
    })
    try {
      return await Promise.race([new Promise<Message>((resolve) => this.#waiting.push(resolve)), lost, late])
    } finally {
      clearTimeout(timer)
      lost.catch(() => {})
    }
  }

  close(): void {
    this.#socket.destroy()
  }
}
