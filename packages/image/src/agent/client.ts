/** The host's end of the agent's port: runs commands in the guest. Independent of ports: bytes go by `send` and come by `receive`. */

import { NonrootError } from '@nonroot/contracts'
import { concatBytes, dataView, decodeText } from '../bytes.ts'
import type { AgentCommand } from './protocol.ts'
import { creditPayload, frame, FromAgent, HEADER_SIZE, MOST_PAYLOAD, numbers, startPayload, ToAgent, VERSION, WINDOW } from './protocol.ts'

/** What becomes of a command. */
export interface CommandEvents {
  /** It wrote this, to standard output or standard error. Call `done` when it was taken: the command waits for a slow reader. */
  output(bytes: Uint8Array, done: () => void): void
  errors(bytes: Uint8Array, done: () => void): void
  /** What was written to its input went out, after `write` gave false. */
  drained(): void
  /** It ended with this status, 128 and the signal's number where a signal ended it; all it wrote was given before. Nothing follows. */
  ended(status: number): void
  /** It was never started. */
  refused(why: NonrootError): void
}

export interface AgentEvents {
  /** The agent is there, and takes commands. */
  ready(): void
  /** It speaks another protocol, or breaks this one: it is not listened to any more. */
  failed(error: NonrootError): void
}

const failure = (message: string, value: unknown): NonrootError =>
  new NonrootError({
    code: 'boot.image',
    message,
    thing: 'agent',
    value,
    remedy: 'make the guest’s image anew: nonroot image debian --refresh',
  })

/** A command that runs in the guest. */
export class GuestCommand {
  readonly #id: number
  readonly #send: (bytes: Uint8Array) => void
  readonly #events: CommandEvents
  /** Input that there was no room for. */
  readonly #waiting: Uint8Array[] = []
  #room = WINDOW
  /** Its input ends behind what waits; the frame that says so went out. */
  #ending = false
  #endSent = false
  readonly #uncredited: [number, number] = [0, 0]

  constructor(id: number, send: (bytes: Uint8Array) => void, events: CommandEvents) {
    this.#id = id
    this.#send = send
    this.#events = events
  }

  /** Bytes for its standard input. False: wait for `drained` before more are written. */
  write(bytes: Uint8Array): boolean {
    if (this.#ending) return true
    if (bytes.length > 0) this.#waiting.push(bytes)
    return this.#pump()
  }

  /** Its standard input ends behind what was written. */
  end(): void {
    if (this.#ending) return
    this.#ending = true
    this.#pump()
  }

  /** Sends a signal, by its number in Linux, to the command and what it started. */
  signal(number: number): void {
    this.#send(frame(this.#id, ToAgent.signal, Uint8Array.of(number)))
  }

  /** Its terminal has another size. */
  resize({ rows, columns }: { readonly rows: number; readonly columns: number }): void {
    this.#send(frame(this.#id, ToAgent.resize, numbers(rows, columns)))
  }

  /** Frames of the agent about this command. True: it was the last. */
  receive(kind: number, payload: Uint8Array): boolean {
    switch (kind) {
      case FromAgent.output:
        this.#events.output(payload, () => this.#credit(0, payload.length))
        return false
      case FromAgent.errors:
        this.#events.errors(payload, () => this.#credit(1, payload.length))
        return false
      case FromAgent.taken:
        this.#taken(payload.length >= 4 ? dataView(payload).getUint32(0, true) : 0)
        return false
      case FromAgent.ended:
        this.#events.ended(payload[0] ?? 0)
        return true
      case FromAgent.refused:
        this.#events.refused(failure(`the guest did not start the command: ${decodeText(payload)}`, decodeText(payload)))
        return true
      default:
        return false
    }
  }

  #taken(bytes: number): void {
    const waited = this.#waiting.length > 0
    this.#room = Math.min(WINDOW, this.#room + bytes)
    if (this.#pump() && waited) this.#events.drained()
  }

  /** As much of the input as there is room for. True: all of it went. */
  #pump(): boolean {
    const waiting = this.#waiting
    while (waiting.length > 0 && this.#room > 0) {
      const [first] = waiting as [Uint8Array]
      const piece = first.subarray(0, this.#room)
      if (piece.length === first.length) waiting.shift()
      else waiting[0] = first.subarray(piece.length)
      this.#room -= piece.length
      this.#send(frame(this.#id, ToAgent.input, piece))
    }
    if (waiting.length > 0) return false
    if (this.#ending && !this.#endSent) {
      this.#endSent = true
      this.#send(frame(this.#id, ToAgent.input))
    }
    return true
  }
  /** In halves of the window: a frame for each piece would be too many. */
  #credit(output: 0 | 1, bytes: number): void {
    const sum = (this.#uncredited[output] += bytes)
    if (sum < WINDOW / 2) return
    this.#uncredited[output] = 0
    this.#send(frame(this.#id, ToAgent.credit, creditPayload(output, sum)))
  }
}

export class AgentClient {
  readonly #send: (bytes: Uint8Array) => void
  readonly #events: AgentEvents
  readonly #commands = new Map<number, GuestCommand>()
  #last = 0
  #partial: Uint8Array = new Uint8Array()
  #state: 'waiting' | 'ready' | 'failed' = 'waiting'

  constructor(send: (bytes: Uint8Array) => void, events: AgentEvents) {
    this.#send = send
    this.#events = events
  }

  get ready(): boolean {
    return this.#state === 'ready'
  }

  /** Runs a command. Throws a NonrootError where it is longer than the agent takes. */
  start(command: AgentCommand, events: CommandEvents): GuestCommand {
    const payload = startPayload(command)
    if (payload.length > MOST_PAYLOAD)
      throw new NonrootError({
        code: 'usage',
        message: `the command is ${payload.length} bytes long`,
        thing: 'command',
        value: payload.length,
        remedy: `at most ${MOST_PAYLOAD} bytes go to the guest; put the rest into its standard input or a file`,
      })
    // Numbers of commands that have ended come again.
    do this.#last = (this.#last % 65_535) + 1
    while (this.#commands.has(this.#last))
    const id = this.#last
    const started = new GuestCommand(id, this.#send, events)
    this.#commands.set(id, started)
    this.#send(frame(id, ToAgent.start, payload))
    return started
  }

  /** The agent ends, and the guest's init goes on with this as the command's status. */
  leave(status: number): void {
    this.#send(frame(0, ToAgent.leave, Uint8Array.of(status)))
  }

  /** What came by the port, in any pieces. */
  receive(bytes: Uint8Array): void {
    if (this.#state === 'failed') return
    const all = this.#partial.length > 0 ? concatBytes([this.#partial, bytes]) : bytes
    const view = dataView(all)
    let at = 0
    while (all.length - at >= HEADER_SIZE) {
      const length = view.getUint32(at, true)
      if (length > MOST_PAYLOAD) return this.#fail(`the agent sent a frame of ${length} bytes`, length)
      const end = at + HEADER_SIZE + length
      if (end > all.length) break
      this.#frame(view.getUint16(at + 4, true), all[at + 6]!, all.subarray(at + HEADER_SIZE, end))
      at = end
    }
    this.#partial = all.slice(at)
  }

  #frame(id: number, kind: number, payload: Uint8Array): void {
    if (kind === FromAgent.hello) {
      const version = payload.length >= 2 ? dataView(payload).getUint16(0, true) : 0
      if (version !== VERSION) return this.#fail(`the agent speaks version ${version}, not ${VERSION}`, version)
      this.#state = 'ready'
      return this.#events.ready()
    }
    // Payloads are kept by whoever shows them; the bytes they came in are not ours.
    if (this.#commands.get(id)?.receive(kind, payload.slice())) this.#commands.delete(id)
  }

  #fail(message: string, value: number): void {
    this.#state = 'failed'
    this.#events.failed(failure(message, value))
  }
}
