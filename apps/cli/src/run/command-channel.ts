/**
 * A command's streams between this process and the guest's agent: bytes as they are, standard error apart, each as fast as its reader takes it. Whether the guest has an
 * agent is known when `started` is called; without one the streams go by the console.
 */

import { AgentClient } from '@nonroot/image'
import type { GuestCommand } from '@nonroot/image'
import type { NonrootError } from '@nonroot/contracts'
import type { Terminal } from '@nonroot/host-node'
import type { TerminalKind } from './protocol.ts'

const [END_OF_TEXT, END_OF_TRANSMISSION, RETURN, NEWLINE] = [3, 4, 13, 10]
const SIGINT = 2

export interface ChannelPorts {
  readonly terminal: Terminal
  /** Bytes for the agent's port. */
  send(bytes: Uint8Array): void
  output(bytes: Uint8Array, done: () => void): void
  errors(bytes: Uint8Array, done: () => void): void
  /** The agent has the command: input goes there from now on. */
  started(): void
  /** The command was not started, or the agent speaks nonsense. */
  failed(error: NonrootError): void
}

export class CommandChannel {
  /** The command's, once it has ended. */
  status: number | undefined
  readonly #words: readonly string[]
  readonly #screen: TerminalKind | undefined
  readonly #ports: ChannelPorts
  readonly #client: AgentClient
  #running: GuestCommand | undefined

  /** With a `screen` the command gets a terminal of its own; keys come from a person either way if `terminal` is interactive. */
  constructor(words: readonly string[], screen: TerminalKind | undefined, ports: ChannelPorts) {
    this.#words = words
    this.#screen = screen
    this.#ports = ports
    this.#client = new AgentClient((bytes) => ports.send(bytes), {
      ready: () => this.#start(),
      failed: (error) => ports.failed(error),
    })
  }

  /** The agent has the command. */
  get started(): boolean {
    return this.#running !== undefined
  }

  receive(bytes: Uint8Array): void {
    this.#client.receive(bytes)
  }

  #start(): void {
    const { terminal } = this.#ports
    const screen = this.#screen
    // A guest that was reset starts anew; its command does not.
    if (this.#running) return
    const command = {
      words: this.#words,
      ...(screen ? { terminal: screen } : {}),
      ...(screen?.name === undefined ? {} : { environment: [`TERM=${screen.name}`] }),
    }
    try {
      this.#running = this.#client.start(command, {
        output: (bytes, done) => this.#ports.output(bytes, done),
        errors: (bytes, done) => this.#ports.errors(bytes, done),
        drained: () => terminal.resume(),
        ended: (status) => this.#ended(status),
        refused: (why) => this.#ports.failed(why),
      })
    } catch (error) {
      return this.#ports.failed(error as NonrootError)
    }
    this.#ports.started()
  }

  /** From standard input. Of a person's keys, where the command has no terminal, those that a terminal would act on do the same. */
  input(bytes: Uint8Array): void {
    const command = this.#running!
    if (this.#ports.terminal.interactive && !this.#screen) return this.#keys(command, bytes)
    if (!command.write(bytes)) this.#ports.terminal.pause()
  }

  inputEnd(): void {
    this.#running!.end()
  }

  #keys(command: GuestCommand, bytes: Uint8Array): void {
    const line = bytes.filter((byte) => byte !== END_OF_TEXT && byte !== END_OF_TRANSMISSION)
    command.write(line.map((byte) => (byte === RETURN ? NEWLINE : byte)))
    if (bytes.includes(END_OF_TEXT)) command.signal(SIGINT)
    if (bytes.includes(END_OF_TRANSMISSION)) command.end()
  }

  resize(size: { readonly columns: number; readonly rows: number }): void {
    if (this.#screen) this.#running?.resize(size)
  }

  #ended(status: number): void {
    this.status = status
    this.#client.leave(status)
  }
}
