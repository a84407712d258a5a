/** One client of a control socket: greeting, negotiation, commands in order, events. Speaks QMP (QEMU's documentation, "QEMU Machine Protocol Specification"). */

import type { Socket } from 'node:net'
import { version } from '../version.ts'
import { JsonStream } from './json-stream.ts'

/** Bytes that wait for a client that does not read; beyond it the client is dropped. */
export const MOST_WAITING = 1 << 20
/** How long a client may take to negotiate. */
export const NEGOTIATION_MS = 10_000

/** The classes that the protocol has. */
export type QmpErrorClass = 'GenericError' | 'CommandNotFound' | 'DeviceNotActive' | 'DeviceNotFound'

/** A command's answer where it is refused. */
export class QmpError extends Error {
  readonly errorClass: QmpErrorClass

  constructor(message: string, errorClass: QmpErrorClass = 'GenericError') {
    super(message)
    this.errorClass = errorClass
  }
}

export type QmpArguments = Readonly<Record<string, unknown>>
/** Gives what the protocol calls `return`. Throws a `QmpError` to refuse. */
export type QmpCommand = (given: QmpArguments) => unknown

/** Commands by name. */
export type QmpCommands = Readonly<Record<string, QmpCommand>>

export interface QmpEvent {
  readonly event: string
  readonly data?: Readonly<Record<string, unknown>>
}

/** Of this program. The protocol has no other key for it than `qemu`. */
export function versionInfo(): { qemu: { major: number; minor: number; micro: number }; package: string } {
  const [major = 0, minor = 0, micro = 0] = version().split('.').map(Number.parseFloat)
  return { qemu: { major, minor, micro }, package: `nonroot ${version()}` }
}

export class QmpSession {
  readonly #socket: Socket
  readonly #commands: QmpCommands
  readonly #stream = new JsonStream()
  readonly #timer: NodeJS.Timeout
  #isNegotiated = false

  constructor(socket: Socket, commands: QmpCommands) {
    this.#socket = socket
    this.#commands = commands
    this.#timer = setTimeout(() => socket.destroy(), NEGOTIATION_MS)
    this.#timer.unref()
    socket.on('data', (chunk) => void this.#receive(chunk))
    socket.on('close', () => clearTimeout(this.#timer))
    this.#send({ QMP: { version: versionInfo(), capabilities: [] } })
  }

  /** Sends an event to a client that has negotiated. */
  tell({ event, data }: QmpEvent): void {
    if (!this.#isNegotiated) return
    const ms = Date.now()
    const timestamp = { seconds: Math.floor(ms / 1000), microseconds: (ms % 1000) * 1000 }
    this.#send({ event, ...(data ? { data } : {}), timestamp })
  }

  #send(message: unknown): void {
    if (this.#socket.writableEnded || this.#socket.destroyed) return
    this.#socket.write(`${JSON.stringify(message)}\r\n`)
    if (this.#socket.writableLength > MOST_WAITING) this.#socket.destroy()
  }

  /** The next chunk is read when the commands of this one have been answered. */
  async #receive(chunk: Uint8Array): Promise<void> {
    this.#socket.pause()
    for (const piece of this.#stream.feed(chunk)) {
      if (this.#socket.destroyed) return
      if (piece.kind === 'object') await this.#execute(piece.text)
      else {
        const problem = piece.kind === 'garbage' ? 'this is no JSON object' : 'the command is too long'
        this.#send(failure('GenericError', `JSON parse error, ${problem}`, undefined))
        if (piece.kind === 'tooLong') return void this.#socket.end()
      }
    }
    this.#socket.resume()
  }

  async #execute(text: string): Promise<void> {
    let id: unknown
    try {
      const request = parse(text)
      id = request['id']
      const value = await this.#answer(request)
      this.#send({ return: value ?? {}, ...(id === undefined ? {} : { id }) })
    } catch (error) {
      const errorClass = error instanceof QmpError ? error.errorClass : 'GenericError'
      this.#send(failure(errorClass, error instanceof Error ? error.message : String(error), id))
    }
  }

  #answer(request: QmpArguments): unknown {
    const { execute: name, arguments: given = {} } = request
    if (typeof name !== 'string') throw new QmpError("QMP input lacks member 'execute'")
    if (given === null || typeof given !== 'object' || Array.isArray(given))
      throw new QmpError("QMP input member 'arguments' must be an object")
    if (name === 'qmp_capabilities') {
      if (this.#isNegotiated)
        throw new QmpError('Capabilities negotiation is already complete, command ignored', 'CommandNotFound')
      clearTimeout(this.#timer)
      this.#isNegotiated = true
      return {}
    }
    if (!this.#isNegotiated)
      throw new QmpError("Expecting capabilities negotiation with 'qmp_capabilities'", 'CommandNotFound')
    if (name === 'query-commands')
      return ['qmp_capabilities', 'query-commands', ...Object.keys(this.#commands)].map((one) => ({ name: one }))
    if (!Object.hasOwn(this.#commands, name))
      throw new QmpError(`The command ${name} has not been found`, 'CommandNotFound')
    return this.#commands[name]!(given as QmpArguments)
  }
}

function parse(text: string): QmpArguments {
  try {
    return JSON.parse(text) as QmpArguments
  } catch (error) {
    throw new QmpError(`JSON parse error, ${(error as Error).message}`)
  }
}

const failure = (errorClass: QmpErrorClass, desc: string, id: unknown): unknown => ({
  error: { class: errorClass, desc },
  ...(id === undefined ? {} : { id }),
})
