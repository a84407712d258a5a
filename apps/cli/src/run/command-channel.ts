/**
 * A VM's own command between this process and the guest's agent: bytes as they are, standard error apart, each as fast as its reader takes it. Whether the guest has an
 * agent is known when `started` is called; without one the streams go by the console.
 */

import { GUEST_SIGNALS } from '@nonroot/image'
import type { GuestCommand, TerminalSize } from '@nonroot/image'
import type { NonrootError } from '@nonroot/contracts'
import type { GuestAgent } from './guest-agent.ts'
import type { TerminalKind } from './protocol.ts'

const [END_OF_TEXT, END_OF_TRANSMISSION, RETURN, NEWLINE] = [3, 4, 13, 10]

export interface ChannelPorts {
  /** Input comes from a person. */
  readonly interactive: boolean
  /** No more input for now, and on again. */
  pause(): void
  resume(): void
  output(bytes: Uint8Array, done: () => void): void
  errors(bytes: Uint8Array, done: () => void): void
  /** The agent has the command: input goes there from now on. */
  started(): void
  /** The command was not started, or is lost. Called once. */
  failed(error: NonrootError): void
}

export class CommandChannel {
  /** The command's, once it has ended. */
  status: number | undefined
  readonly #agent: GuestAgent
  readonly #words: readonly string[]
  readonly #screen: TerminalKind | undefined
  readonly #ports: ChannelPorts
  #running: GuestCommand | undefined

  /** With a `screen` the command gets a terminal of its own; keys come from a person either way if the input is interactive. */
  constructor(agent: GuestAgent, words: readonly string[], screen: TerminalKind | undefined, ports: ChannelPorts) {
    this.#agent = agent
    this.#words = words
    this.#screen = screen
    this.#ports = ports
    // Once: a guest that was restarted does not get its command again, which may have done half of its work.
    agent.whenReady((failure) => (failure ? this.#failed(failure) : this.#start()))
  }

  /** The agent has the command. */
  get started(): boolean {
    return this.#running !== undefined
  }

  #start(): void {
    const screen = this.#screen
    const command = {
      words: this.#words,
      ...(screen ? { terminal: screen } : {}),
      ...(screen?.name === undefined ? {} : { environment: [`TERM=${screen.name}`] }),
    }
    const { output, errors, resume } = this.#ports
    const failed = (error: NonrootError): void => this.#failed(error)
    try {
      this.#running = this.#agent.client.start(command, {
        ...{ output, errors },
        drained: resume,
        ended: (status) => this.#ended(status),
        ...{ refused: failed, lost: failed },
      })
    } catch (error) {
      return failed(error as NonrootError)
    }
    this.#ports.started()
  }

  /** From standard input. Of a person's keys, where the command has no terminal, those that a terminal would act on do the same. */
  input(bytes: Uint8Array): void {
    const command = this.#running!
    if (this.#ports.interactive && !this.#screen) return this.#keys(command, bytes)
    if (!command.write(bytes)) this.#ports.pause()
  }

  inputEnd(): void {
    this.#running!.end()
  }

  #keys(command: GuestCommand, bytes: Uint8Array): void {
    const line = bytes.filter((byte) => byte !== END_OF_TEXT && byte !== END_OF_TRANSMISSION)
    command.write(line.map((byte) => (byte === RETURN ? NEWLINE : byte)))
    if (bytes.includes(END_OF_TEXT)) command.signal(GUEST_SIGNALS.SIGINT)
    if (bytes.includes(END_OF_TRANSMISSION)) command.end()
  }

  resize(size: TerminalSize): void {
    if (this.#screen) this.#running?.resize(size)
  }

  /** To the command, by its number in Linux. */
  signal(number: number): void {
    this.#running?.signal(number)
  }

  #ended(status: number): void {
    this.status = status
    this.#agent.client.leave(status)
  }

  /** Of a guest that has ended its end says why. */
  #failed(error: NonrootError): void {
    if (!this.#agent.ended) this.#ports.failed(error)
  }
}
