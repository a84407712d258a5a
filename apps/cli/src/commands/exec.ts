/** `nonroot exec NAME -- COMMAND`: a command in the guest of a running VM, with its streams, signals and status. */

import { connect } from 'node:net'
import { constants } from 'node:os'
import { NonrootError } from '@nonroot/contracts'
import { openTerminal } from '@nonroot/host-node'
import type { Terminal } from '@nonroot/host-node'
import { AgentClient, GUEST_SIGNALS } from '@nonroot/image'
import type { AgentCommand, GuestCommand } from '@nonroot/image'
import { findVm } from '../control/find-vm.ts'
import type { CommandIo } from '../io.ts'
import { EscapeKeys } from '../run/escape-keys.ts'

export interface ExecOptions {
  readonly interactive?: boolean
  readonly tty?: boolean
}

/** What is passed on. */
const SIGNALS = ['SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGUSR1', 'SIGUSR2', 'SIGTERM'] as const
/** How long a guest may take until its agent is there, and when a notice says what the command waits for. */
const PATIENCE_MS = 120_000
const NOTICE_MS = 2000
/** Of a terminal that no one looks at. */
const USUAL_SIZE = { rows: 24, columns: 80 }

const HELP = `
Ctrl-A X  leave; the command is hung up
Ctrl-A A  send Ctrl-A to the command
`

export async function exec(name: string, words: readonly string[], options: ExecOptions, io: CommandIo): Promise<number> {
  if (words.length === 0)
    throw new NonrootError({ code: 'usage', message: 'no command was given', thing: 'command', remedy: `nonroot exec ${name} -- COMMAND` })
  const { sockets, name: vm } = await findVm(name)
  const terminal = openTerminal()
  try {
    return await new Execution(name, sockets.exec(vm), commandOf(words, options, terminal), options, terminal, io).run()
  } finally {
    terminal.close()
  }
}

function commandOf(words: readonly string[], { tty }: ExecOptions, terminal: Terminal): AgentCommand {
  const kind = process.env['TERM']
  if (!tty) return { words }
  return { words, terminal: terminal.size() ?? USUAL_SIZE, ...(kind ? { environment: [`TERM=${kind}`] } : {}) }
}

class Execution {
  readonly #command: AgentCommand
  readonly #options: ExecOptions
  readonly #terminal: Terminal
  readonly #io: CommandIo
  readonly #socket
  readonly #client: AgentClient
  /** Until the agent is there. */
  readonly #timers: readonly NodeJS.Timeout[]
  #running: GuestCommand | undefined
  #signals = 0
  #resolve!: (status: number) => void
  #reject!: (error: unknown) => void

  constructor(name: string, path: string, command: AgentCommand, options: ExecOptions, terminal: Terminal, io: CommandIo) {
    this.#command = command
    this.#options = options
    this.#terminal = terminal
    this.#io = io
    const socket = (this.#socket = connect(path))
    this.#client = new AgentClient((bytes) => void socket.write(bytes), {
      ready: () => this.#start(),
      failed: (error) => this.#reject(error),
    })
    socket.on('data', (bytes) => this.#client.receive(bytes))
    socket.on('error', (error) => this.#reject(gone(name, error)))
    socket.on('close', () => this.#reject(gone(name)))
    const notice = "waiting for the agent in the guest, which starts with the guest's system\n"
    this.#timers = [
      setTimeout(() => io.err(notice), NOTICE_MS),
      setTimeout(() => this.#reject(noAgent()), PATIENCE_MS),
    ]
  }

  async run(): Promise<number> {
    const ended = new Promise<number>((...settle) => ([this.#resolve, this.#reject] = settle))
    const onSignal = (signal: NodeJS.Signals): void => this.#signal(signal as (typeof SIGNALS)[number])
    for (const signal of SIGNALS) process.on(signal, onSignal)
    this.#terminal.onOutputClosed(() => this.#resolve(128 + constants.signals.SIGPIPE))
    try {
      const status = await ended
      await this.#terminal.drain()
      return status
    } finally {
      this.#timers.forEach(clearTimeout)
      this.#socket.destroy()
      for (const signal of SIGNALS) process.off(signal, onSignal)
    }
  }

  #start(): void {
    this.#timers.forEach(clearTimeout)
    const command = (this.#running = this.#client.start(this.#command, {
      output: (bytes, done) => this.#terminal.write(bytes, done),
      errors: (bytes, done) => void process.stderr.write(bytes, () => done()),
      drained: () => void process.stdin.resume(),
      ended: (status) => this.#resolve(status),
      refused: (why) => this.#reject(why),
      lost: (why) => this.#reject(why),
    }))
    this.#terminal.onResize((size) => command.resize(size))
    if (this.#options.interactive) this.#connectInput(command)
    else command.end()
  }

  #connectInput(command: GuestCommand): void {
    const { stdin } = process
    const write = (bytes: Uint8Array): void => {
      if (!command.write(bytes)) stdin.pause()
    }
    if (this.#command.terminal && stdin.isTTY) {
      const keys = new EscapeKeys((key) => (key === 'quit' ? this.#resolve(128 + GUEST_SIGNALS.SIGHUP) : this.#io.err(HELP)))
      return this.#terminal.onInput((bytes) => write(keys.filter(bytes)))
    }
    // A person's terminal stays as it is: its lines, its Ctrl-D and its Ctrl-C are ours.
    stdin.on('data', write)
    stdin.on('end', () => command.end())
    stdin.resume()
  }

  /** To the command. Before it runs, or the third time, it ends us. */
  #signal(signal: (typeof SIGNALS)[number]): void {
    this.#signals++
    if (this.#running && this.#signals < 3) this.#running.signal(GUEST_SIGNALS[signal])
    else this.#resolve(128 + GUEST_SIGNALS[signal])
  }
}

const gone = (name: string, cause?: unknown): NonrootError =>
  new NonrootError({
    code: 'guest.crashed',
    message: `the VM "${name}" ended, or its process`,
    thing: name,
    remedy: 'nonroot ps lists those that run',
    ...(cause === undefined ? {} : { cause }),
  })

const noAgent = (): NonrootError =>
  new NonrootError({
    code: 'guest.timeout',
    message: `the guest has not started its agent in ${PATIENCE_MS / 1000} s`,
    thing: 'agent',
    remedy: 'its system may hang, or its image may be too old: nonroot attach shows its console',
  })
