/** Threads that run VMs, and their VMs, as the main thread sees them. */

import { MessageChannel } from 'node:worker_threads'
import type { MessagePort, Worker } from 'node:worker_threads'
import type { MetricSample, VmEnd } from '@nonroot/contracts'
import { shown } from '@nonroot/host-node'
import type { LogLevel, VmEvent, VmInfo } from '@nonroot/hypervisor'
import type { FoldedStack } from '../profile/profiler.ts'
import type { FromVm, HostJob, RequestName, Requests, RunJob, ToVm, TraceEvents } from './protocol.ts'
import { receiveError } from './sent-error.ts'
import type { StartMarks } from './start-times.ts'
import { takeThread } from '../thread.ts'

export interface VmEvents {
  /** Call `done` when the bytes were shown: the guest waits for a slow reader. */
  onOutput(bytes: Uint8Array, done: () => void): void
  /** The guest's agent sent this. */
  onAgent?(bytes: Uint8Array): void
  onLog(level: LogLevel, message: string): void
  onStarted(): void
  onEvent?(event: VmEvent): void
  onTrace?(events: TraceEvents): void
}

export interface VmOutcome {
  readonly end: VmEnd
  readonly stats: readonly MetricSample[]
  readonly info: VmInfo
  readonly marks: StartMarks
  readonly profile?: readonly FoldedStack[]
}

/** A thread that runs VMs. */
export class VmThread {
  /** Rejects when it fails as a whole. */
  readonly failed: Promise<never>
  readonly #worker: Worker

  constructor() {
    this.#worker = takeThread()
    this.failed = new Promise((_, reject) => this.#worker.on('error', reject))
    this.failed.catch(() => {})
  }

  /** Once. */
  start(job: Omit<HostJob, 'vms'>, vms: readonly { readonly handle: VmHandle; readonly job: RunJob }[]): void {
    const started = vms.map((vm) => ({ job: vm.job, port: vm.handle.start(this) }))
    const ports = started.map(({ port }) => port)
    try {
      this.#worker.postMessage({ ...job, vms: started } satisfies HostJob, ports)
    } catch (error) {
      if (!(error instanceof DOMException && error.name === 'DataCloneError')) throw error
      // A configuration that is code may hold functions: the thread reads it itself.
      const host = job.host && { host: { memory: job.host.memory } }
      const unread = started.map(({ job: { config: _, ...rest }, port }) => ({ job: rest, port }))
      this.#worker.postMessage({ ...job, ...host, vms: unread } satisfies HostJob, ports)
    }
  }

  async end(): Promise<void> {
    await this.#worker.terminate()
  }
}

/** A VM in a thread as the main thread sees it. */
export class VmHandle {
  /** Rejects with what kept the VM from being made. */
  readonly ended: Promise<VmOutcome>
  readonly #port: MessagePort
  /** The other end, until the thread has it. What is sent before waits in it. */
  readonly #theirs: MessagePort
  readonly #replies = new Map<number, (value: unknown) => void>()
  readonly #reject: (error: unknown) => void
  #requests = 0
  #isStarted = false
  #isEnded = false

  constructor(flow: Int32Array, events: VmEvents) {
    const { port1, port2 } = new MessageChannel()
    this.#port = port1
    this.#theirs = port2
    let resolve!: (outcome: VmOutcome) => void
    let reject!: (error: unknown) => void
    this.ended = new Promise((...settle) => ([resolve, reject] = settle))
    this.#reject = reject
    // Rejects for callers that wait for it; there may be none yet.
    this.ended.catch(() => {})
    port1.on('message', (message: FromVm) => {
      switch (message.type) {
        case 'output':
          return events.onOutput(message.bytes, () => shown(flow, message.bytes.length))
        case 'agent':
          return events.onAgent?.(message.bytes)
        case 'log':
          return events.onLog(message.level, message.message)
        case 'started':
          return events.onStarted()
        case 'event':
          return events.onEvent?.(message.event)
        case 'trace':
          return events.onTrace?.(message.events)
        case 'reply':
          this.#replies.get(message.id)?.(message.value)
          this.#replies.delete(message.id)
          return
        case 'ended':
          this.#finish()
          return resolve(message)
        case 'failed':
          this.#finish()
          return reject(receiveError(message.error))
      }
    })
    // After all that the thread has sent.
    port1.on('close', () => {
      this.#finish()
      reject(new Error('the thread of the VM ended before the VM did'))
    })
  }

  /** Gives the end that the thread takes. */
  start(thread: VmThread): MessagePort {
    thread.failed.catch(this.#reject)
    this.#isStarted = true
    return this.#theirs
  }

  /** A thread has it, or had it. */
  get isStarted(): boolean {
    return this.#isStarted
  }
  get isEnded(): boolean {
    return this.#isEnded
  }
  /** Who waits for an answer gets none. */
  #finish(): void {
    this.#isEnded = true
    for (const reply of this.#replies.values()) reply(undefined)
    this.#replies.clear()
  }

  input(bytes: Uint8Array): void {
    this.#post({ type: 'input', bytes })
  }

  /** To the guest's agent. */
  agent(bytes: Uint8Array): void {
    this.#post({ type: 'agent', bytes })
  }

  inputEnd(): void {
    this.#post({ type: 'inputEnd' })
  }

  resize(columns: number, rows: number): void {
    this.#post({ type: 'resize', columns, rows })
  }

  /** Undefined: the VM is not there yet, or no more. */
  request<R extends RequestName>(what: R, of?: Requests[R]['of']): Promise<Requests[R]['gives'] | undefined> {
    if (this.#isEnded) return Promise.resolve(undefined)
    const id = this.#requests++
    return new Promise((resolve) => {
      this.#replies.set(id, resolve as (value: unknown) => void)
      this.#post({ type: 'request', id, what, of })
    })
  }

  /** Ends the VM, if its thread listens. */
  stop(): void {
    if (this.#isStarted) this.#post({ type: 'stop' })
    else this.#theirs.close()
  }

  close(): void {
    this.#port.close()
  }

  #post(message: ToVm): void {
    this.#port.postMessage(message)
  }
}
