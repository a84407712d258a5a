/** One of several VMs: destination of its console, reason of its stop, its end. */

import { createWriteStream } from 'node:fs'
import type { WriteStream } from 'node:fs'
import { report, tell } from '../io.ts'
import type { CommandIo, Level } from '../io.ts'
import type { BootPlan } from '../run/boot-plan.ts'
import type { CommandChannel } from '../run/command-channel.ts'
import { Marks } from '../run/marks.ts'
import { PanicWatch } from '../run/panic-watch.ts'
import { commandStatus, progressOf, runEnd } from '../run/run-end.ts'
import type { SignalReason, StopReason } from '../run/run-end.ts'
import { GRACE_MS } from '../run/run-job.ts'
import type { VmOutcome } from '../run/vm-handle.ts'
import { WatchedVm } from '../run/watched-vm.ts'
import type { LineSource } from './line-printer.ts'

export interface FleetVmOptions {
  readonly name: string
  readonly lines: LineSource
  /** Where what a command writes to standard error goes. */
  readonly errors: LineSource
  /** It runs this: only that one's output is shown. */
  readonly command?: readonly string[]
  /** Where the whole console goes. */
  readonly log?: string
  readonly timeout?: { readonly ms: number; readonly text: string }
  /** Resolves when what was written is out. */
  readonly drained: () => Promise<void>
  /** Ends the thread that the VM has for itself: it was asked to stop and does not listen. */
  readonly abandon?: () => void
  /** For messages. */
  readonly io: CommandIo
}

/** How one VM ended. */
export interface FleetVmResult {
  readonly status: number
  readonly outcome: VmOutcome | undefined
}

export class FleetVm {
  readonly vm: WatchedVm
  readonly result: Promise<FleetVmResult>
  readonly #options: FleetVmOptions
  readonly #marks: Marks | undefined
  #channel: CommandChannel | undefined
  readonly #panic = new PanicWatch((message) => this.stop({ by: 'panic', message }))
  readonly #log: WriteStream | undefined
  #stopReason: StopReason | undefined
  #asked: SignalReason | undefined
  #waiting: NodeJS.Timeout | undefined
  #timer: NodeJS.Timeout | undefined
  #patience: NodeJS.Timeout | undefined

  constructor(options: FleetVmOptions) {
    const { name, lines, log, command } = options
    this.#options = options
    this.#marks = command ? new Marks((bytes) => lines.feed(bytes, () => {})) : undefined
    if (log !== undefined) {
      this.#log = createWriteStream(log)
      this.#log.on('error', (error) => this.#say(`cannot write its log: ${error.message}`))
    }
    this.vm = new WatchedVm(name, {
      onOutput: (bytes, done) => this.#output(bytes, done),
      onLog: (level, message) => this.#say(message, level),
      onStarted: () => this.#started(),
      onStop: (reason) => this.stop(reason),
    })
    this.result = this.#finish()
  }

  /** Its command goes by the guest's agent, where the plan has one; otherwise by the console. It reads nothing. */
  async plan(plan: BootPlan): Promise<void> {
    const agent = await this.vm.planAgent(plan)
    const { command, lines, errors } = this.#options
    if (!command) return
    this.vm.handle.inputEnd()
    if (!agent) return
    const { CommandChannel: Channel } = await import('../run/command-channel.ts')
    const channel: CommandChannel = new Channel(agent, command, undefined, {
      interactive: false,
      pause() {},
      resume() {},
      output: (bytes, done) => lines.feed(bytes, done),
      errors: (bytes, done) => errors.feed(bytes, done),
      started: () => channel.inputEnd(),
      failed: (error) => this.stop({ by: 'agent', message: error.describe() }),
    })
    this.#channel = channel
  }

  #started(): void {
    const { timeout } = this.#options
    if (timeout) this.#timer = setTimeout(() => this.stop({ by: 'timeout', text: timeout.text }), timeout.ms)
  }

  #output(bytes: Uint8Array, done: () => void): void {
    this.#log?.write(bytes)
    this.#panic.feed(bytes)
    if (!this.#marks) return this.#options.lines.feed(bytes, done)
    this.#marks.feed(bytes)
    void this.#options.drained().then(done)
  }

  /** Asks the command, or the guest by its power button, to end, and ends it when that takes too long. */
  async shutDown(reason: SignalReason, patienceMs: number): Promise<void> {
    this.#asked = reason
    if (this.#channel?.started) this.#channel.signal(reason.number)
    else if (this.vm.state === 'creating' || !(await this.vm.request('powerButton'))) return this.stop(reason)
    this.#waiting = setTimeout(() => this.stop(reason), patienceMs)
  }

  stop(reason: StopReason): void {
    this.#stopReason ??= reason
    this.vm.handle.stop()
    this.#patience ??= setTimeout(() => this.#options.abandon?.(), GRACE_MS)
  }

  async #finish(): Promise<FleetVmResult> {
    let outcome: VmOutcome | undefined
    let status: number
    try {
      outcome = await this.vm.handle.ended
      status = this.#judge(outcome)
    } catch (error) {
      status = this.#failed(error)
    }
    clearTimeout(this.#timer)
    clearTimeout(this.#waiting)
    clearTimeout(this.#patience)
    this.#options.lines.flush()
    this.#options.errors.flush()
    await new Promise<void>((resolve) => (this.#log ? this.#log.end(() => resolve()) : resolve()))
    this.vm.finish({ status, end: outcome?.end, stop: this.#stopReason })
    return { status, outcome }
  }

  #judge({ end, info }: VmOutcome): number {
    const { status, words, level } = runEnd(end, this.#stopReason ?? this.#asked, info.vcpus[0]?.rip)
    if (words) this.#say(words, level)
    if (!this.#marks || this.#stopReason?.by === 'user') return status
    const command = commandStatus(status, end.state, progressOf(this.#marks, this.#channel))
    if (command.words) this.#say(command.words)
    return command.status
  }

  #failed(error: unknown): number {
    if (this.#stopReason) return runEnd({ state: 'stopped' }, this.#stopReason, undefined).status
    const { io, name } = this.#options
    // What kept all VMs from starting is reported once, by the command.
    return this.vm.handle.isStarted ? report(error, io, false, name) : 1
  }

  #say(words: string, level: Level = 'notice'): void {
    const { io, name } = this.#options
    tell(io, level, words, { vm: name })
  }
}
