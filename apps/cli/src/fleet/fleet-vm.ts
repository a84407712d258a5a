/** One of several VMs as the main thread sees it: its console, why it was stopped, how it ended. */

import { createWriteStream } from 'node:fs'
import type { WriteStream } from 'node:fs'
import { createFlow } from '@nonroot/host-node'
import type { VmEvent } from '@nonroot/hypervisor'
import { ExitCode, NonrootError } from '@nonroot/contracts'
import { Marks } from '../run/marks.ts'
import { PanicWatch } from '../run/panic-watch.ts'
import { commandStatus, runEnd } from '../run/run-end.ts'
import type { StopReason } from '../run/run-end.ts'
import { VmHandle } from '../run/vm-handle.ts'
import type { VmOutcome } from '../run/vm-handle.ts'
import type { LineSource } from './line-printer.ts'

/** `creating` → `running` ⇄ `paused` → `ended`. */
export type FleetVmState = 'creating' | 'running' | 'paused' | 'ended'

export interface FleetVmOptions {
  readonly name: string
  readonly lines: LineSource
  /** It runs a command: only that one's output is shown. */
  readonly command: boolean
  /** Where the whole console goes. */
  readonly log?: string
  readonly timeout?: { readonly ms: number; readonly text: string }
  /** Something to tell a person. */
  readonly say: (words: string) => void
}

/** How one VM ended. */
export interface FleetVmResult {
  readonly status: number
  readonly outcome: VmOutcome | undefined
}

export class FleetVm {
  readonly name: string
  readonly flow = createFlow()
  readonly handle: VmHandle
  readonly result: Promise<FleetVmResult>
  state: FleetVmState = 'creating'
  /** Set at the end. */
  status: number | undefined
  readonly startedAt = Date.now()
  readonly #options: FleetVmOptions
  readonly #marks: Marks | undefined
  readonly #panic = new PanicWatch((message) => this.stop({ by: 'panic', message }))
  readonly #log: WriteStream | undefined
  readonly #consoles = new Set<(bytes: Uint8Array) => void>()
  readonly #watchers = new Set<(event: VmEvent) => void>()
  #stopReason: StopReason | undefined
  #timer: NodeJS.Timeout | undefined

  constructor(options: FleetVmOptions) {
    const { name, lines, log, command, say } = options
    this.name = name
    this.#options = options
    this.#marks = command ? new Marks((bytes) => lines.feed(bytes, () => {})) : undefined
    if (log !== undefined) {
      this.#log = createWriteStream(log)
      this.#log.on('error', (error) => say(`cannot write its log: ${error.message}`))
    }
    this.handle = new VmHandle(this.flow, {
      onOutput: (bytes, done) => this.#output(bytes, done),
      onLog: (level, message) => say(`${level}: ${message}`),
      onStarted: () => this.#started(),
      onEvent: (event) => this.#event(event),
    })
    this.result = this.#finish()
  }

  #started(): void {
    if (this.state === 'creating') this.state = 'running'
    const { timeout } = this.#options
    if (timeout) this.#timer = setTimeout(() => this.stop({ by: 'timeout', text: timeout.text }), timeout.ms)
  }

  #output(bytes: Uint8Array, done: () => void): void {
    this.#log?.write(bytes)
    for (const console of this.#consoles) console(bytes)
    this.#panic.feed(bytes)
    if (!this.#marks) return this.#options.lines.feed(bytes, done)
    this.#marks.feed(bytes)
    done()
  }

  #event(event: VmEvent): void {
    if (event.kind === 'paused' || event.kind === 'resumed') this.state = event.kind === 'paused' ? 'paused' : 'running'
    for (const watcher of this.#watchers) watcher(event)
  }

  /** Calls the listener with all that the guest prints from now on. Call the result to stop. */
  onConsole(listener: (bytes: Uint8Array) => void): () => void {
    this.#consoles.add(listener)
    return () => void this.#consoles.delete(listener)
  }

  onEvent(listener: (event: VmEvent) => void): () => void {
    this.#watchers.add(listener)
    return () => void this.#watchers.delete(listener)
  }

  stop(reason: StopReason): void {
    this.#stopReason ??= reason
    this.handle.stop()
  }

  async #finish(): Promise<FleetVmResult> {
    let outcome: VmOutcome | undefined
    let status: number
    try {
      outcome = await this.handle.ended
      status = this.#judge(outcome)
    } catch (error) {
      status = this.#failed(error)
    }
    clearTimeout(this.#timer)
    this.#options.lines.flush()
    this.state = 'ended'
    this.status = status
    await new Promise<void>((resolve) => (this.#log ? this.#log.end(() => resolve()) : resolve()))
    return { status, outcome }
  }

  #judge({ end, info }: VmOutcome): number {
    const { say } = this.#options
    const { status, words } = runEnd(end, this.#stopReason, info.vcpus[0]?.rip)
    if (words) say(words)
    if (!this.#marks || this.#stopReason?.by === 'user') return status
    const command = commandStatus(status, end.state, this.#marks)
    if (command.words) say(command.words)
    return command.status
  }

  #failed(error: unknown): number {
    const { say } = this.#options
    if (this.#stopReason) return runEnd({ state: 'stopped' }, this.#stopReason, undefined).status
    if (!(error instanceof NonrootError)) {
      say(`error: ${error instanceof Error ? error.message : String(error)}`)
      return ExitCode.internal
    }
    for (const one of error.errors.length ? error.errors : [error]) say(`error: ${one.describe()}`)
    return error.exitCode
  }
}
