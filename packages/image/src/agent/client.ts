/** The host's end of the agent's port: runs commands in the guest. Independent of ports: bytes go by `send` and come by `receive`. */

import { NonrootError } from '@nonroot/contracts'
import { dataView, decodeText, encodeText } from '../bytes.ts'
import type { AgentCommand, TerminalSize } from './protocol.ts'
import { creditPayload, frame, FrameReader, FromAgent, MOST_PAYLOAD, numbers, startPayload, ToAgent, VERSION, WINDOW } from './protocol.ts'

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
  /** Its guest, or the agent there, ended before it: what became of it is not known. Nothing follows. */
  lost(why: NonrootError): void
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

const refused = (why: string): NonrootError =>
  new NonrootError({ code: 'usage', message: `the guest did not start the command: ${why}`, thing: 'command', value: why })

const lost = (why: string): NonrootError =>
  new NonrootError({ code: 'guest.crashed', message: `${why} before the command had ended`, thing: 'command' })

const sizePayload = ({ rows, columns }: TerminalSize): Uint8Array => numbers(rows, columns)

/** Frames of one command to the agent. */
export type SendFrame = (kind: number, payload?: Uint8Array) => void
/** Frames of the agent about one command. True: it was the last. */
export type ReceiveFrame = (kind: number, payload: Uint8Array) => boolean

/** A command that runs in the guest. */
export class GuestCommand {
  readonly #send: SendFrame
  readonly #events: CommandEvents
  /** Input that there was no room for. */
  readonly #waiting: Uint8Array[] = []
  #room = WINDOW
  /** Its input ends behind what waits; the frame that says so went out. */
  #ending = false
  #endSent = false
  readonly #uncredited: [number, number] = [0, 0]

  constructor(send: SendFrame, events: CommandEvents) {
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
    this.#send(ToAgent.signal, Uint8Array.of(number))
  }

  /** Its terminal has another size. */
  resize(size: TerminalSize): void {
    this.#send(ToAgent.resize, sizePayload(size))
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
        this.#events.refused(refused(decodeText(payload)))
        return true
      case FromAgent.lost:
        this.#events.lost(lost(decodeText(payload)))
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
      this.#send(ToAgent.input, piece)
    }
    if (waiting.length > 0) return false
    if (this.#ending && !this.#endSent) {
      this.#endSent = true
      this.#send(ToAgent.input)
    }
    return true
  }

  /** In halves of the window: a frame for each piece would be too many. */
  #credit(output: 0 | 1, bytes: number): void {
    const sum = (this.#uncredited[output] += bytes)
    if (sum < WINDOW / 2) return
    this.#uncredited[output] = 0
    this.#send(ToAgent.credit, creditPayload(output, sum))
  }
}

/** Numbers of commands are 16 bits, and 0 is no command. */
const MOST_NUMBERS = 65_535

export class AgentClient {
  readonly #send: (bytes: Uint8Array) => void
  readonly #events: AgentEvents
  readonly #commands = new Map<number, ReceiveFrame>()
  readonly #frames = new FrameReader()
  #last = 0
  #state: 'waiting' | 'ready' | 'failed' = 'waiting'

  constructor(send: (bytes: Uint8Array) => void, events: AgentEvents) {
    this.#send = send
    this.#events = events
  }

  get ready(): boolean {
    return this.#state === 'ready'
  }

  /** Runs a command. Throws a `usage` NonrootError if it is longer than the agent takes, or if too many run. */
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
    const started = new GuestCommand(
      this.relay(payload, (kind, bytes) => started.receive(kind, bytes)),
      events,
    )
    return started
  }

  /** Runs a command whose frames somebody else makes and reads: `payload` is that of `start`. Gives what sends the others. Throws if too many run. */
  relay(payload: Uint8Array, receive: ReceiveFrame): SendFrame {
    const id = this.#freeNumber()
    const send: SendFrame = (kind, bytes) => {
      // The number may be another command's by now.
      if (this.#commands.get(id) === receive) this.#send(frame(id, kind, bytes))
    }
    this.#commands.set(id, receive)
    send(ToAgent.start, payload)
    return send
  }

  /** Numbers of commands that have ended come again. */
  #freeNumber(): number {
    if (this.#commands.size >= MOST_NUMBERS)
      throw new NonrootError({ code: 'usage', message: `${MOST_NUMBERS} commands run in the guest`, thing: 'command', remedy: 'wait until one has ended' })
    do this.#last = (this.#last % MOST_NUMBERS) + 1
    while (this.#commands.has(this.#last))
    return this.#last
  }

  /** The console's terminal has another size. */
  resizeConsole(size: TerminalSize): void {
    this.#send(frame(0, ToAgent.resize, sizePayload(size)))
  }

  /** The agent ends, and the guest's init goes on with this as the command's status. */
  leave(status: number): void {
    this.#send(frame(0, ToAgent.leave, Uint8Array.of(status)))
  }

  /** The guest was reset or has ended, as `why` says: its commands are lost. An agent that says hello is another one. */
  lose(why: string): void {
    if (this.#state === 'ready') this.#state = 'waiting'
    this.#frames.clear()
    const commands = [...this.#commands.values()]
    this.#commands.clear()
    for (const receive of commands) receive(FromAgent.lost, encodeText(why))
  }

  /** What came by the port, in any pieces. */
  receive(bytes: Uint8Array): void {
    if (this.#state === 'failed') return
    const tooLong = this.#frames.read(bytes, (id, kind, payload) => this.#frame(id, kind, payload))
    if (tooLong !== undefined) this.#fail(`the agent sent a frame of ${tooLong} bytes`, tooLong)
  }

  #frame(id: number, kind: number, payload: Uint8Array): void {
    if (this.#state === 'failed') return
    if (kind === FromAgent.hello) {
      const version = payload.length >= 2 ? dataView(payload).getUint16(0, true) : 0
      if (version !== VERSION) return this.#fail(`the agent speaks version ${version}, not ${VERSION}`, version)
      if (this.#state === 'ready') this.lose('the agent in the guest was started again')
      this.#state = 'ready'
      return this.#events.ready()
    }
    // Of no command: a host that has no agent to speak with.
    if (kind === FromAgent.refused && id === 0) return this.#refused(decodeText(payload))
    // Consumers keep payloads, and the buffer that they came in is reused: copy.
    if (this.#commands.get(id)?.(kind, payload.slice())) this.#commands.delete(id)
  }

  #refused(why: string): void {
    const [message = '', ...remedy] = why.split('\n')
    this.#state = 'failed'
    this.#events.failed(
      new NonrootError({ code: 'usage', message, thing: 'agent', ...(remedy.length ? { remedy: remedy.join('\n') } : {}) }),
    )
  }

  #fail(message: string, value: number): void {
    this.#state = 'failed'
    this.#events.failed(failure(message, value))
    this.lose(message)
  }
}
