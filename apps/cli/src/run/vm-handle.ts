/** The VM's thread as the main thread sees it. */

import type { Worker } from 'node:worker_threads'
import type { MetricSample, VmEnd } from '@nonroot/contracts'
import { shown } from '@nonroot/host-node'
import type { LogLevel, VmInfo } from '@nonroot/hypervisor'
import type { FoldedStack } from '../profile/profiler.ts'
import type { FromVm, RequestName, Requests, RunJob, ToVm, TraceEvents } from './protocol.ts'
import { receiveError } from './sent-error.ts'
import type { StartMarks } from './start-times.ts'
import { takeThread } from '../thread.ts'

export interface VmEvents {
  /** Call `done` when the bytes were shown: the guest waits for a slow reader. */
  onOutput(bytes: Uint8Array, done: () => void): void
  onLog(level: LogLevel, message: string): void
  onStarted(): void
  onTrace(events: TraceEvents): void
}

export interface VmOutcome {
  readonly end: VmEnd
  readonly stats: readonly MetricSample[]
  readonly info: VmInfo
  readonly marks: StartMarks
  readonly profile?: readonly FoldedStack[]
}

/** How long a thread that was asked to stop may take. */
const GRACE_MS = 2000

export class VmHandle {
  /** Rejects with what kept the VM from being made. */
  readonly ended: Promise<VmOutcome>
  readonly #worker: Worker
  readonly #replies = new Map<number, (value: unknown) => void>()
  #requests = 0
  /** What came before the job; it is what the thread hears first. */
  #early: ToVm[] | undefined = []
  #stopping: NodeJS.Timeout | undefined

  constructor(flow: Int32Array, events: VmEvents) {
    this.#worker = takeThread()
    this.ended = new Promise((resolve, reject) => {
      this.#worker.on('message', (message: FromVm) => {
        switch (message.type) {
          case 'output':
            return events.onOutput(message.bytes, () => shown(flow, message.bytes.length))
          case 'log':
            return events.onLog(message.level, message.message)
          case 'started':
            return events.onStarted()
          case 'trace':
            return events.onTrace(message.events)
          case 'reply':
            this.#replies.get(message.id)?.(message.value)
            this.#replies.delete(message.id)
            return
          case 'ended':
            return resolve(message)
          case 'failed':
            return reject(receiveError(message.error))
        }
      })
      this.#worker.on('error', reject)
      this.#worker.on('exit', () => {
        clearTimeout(this.#stopping)
        reject(new Error('the thread of the VM ended before the VM did'))
      })
    })
    // Rejects for callers that wait for it; there may be none yet.
    this.ended.catch(() => {})
  }

  start(job: RunJob): void {
    try {
      this.#worker.postMessage(job)
    } catch (error) {
      if (!(error instanceof DOMException && error.name === 'DataCloneError')) throw error
      // A configuration that is code may hold functions: the thread reads it itself.
      const { config: _, ...rest } = job
      this.#worker.postMessage(rest)
    }
    const early = this.#early ?? []
    this.#early = undefined
    for (const message of early) this.#post(message)
  }

  input(bytes: Uint8Array): void {
    this.#post({ type: 'input', bytes })
  }

  inputEnd(): void {
    this.#post({ type: 'inputEnd' })
  }

  resize(columns: number, rows: number): void {
    this.#post({ type: 'resize', columns, rows })
  }

  request<R extends RequestName>(what: R): Promise<Requests[R] | undefined> {
    const id = this.#requests++
    return new Promise((resolve) => {
      this.#replies.set(id, resolve as (value: unknown) => void)
      this.#post({ type: 'request', id, what })
    })
  }

  /** End the VM; the thread, too, if it does not listen, or has nothing to do yet. */
  stop(): void {
    if (this.#early) return void this.#worker.terminate()
    this.#post({ type: 'stop' })
    this.#stopping ??= setTimeout(() => void this.#worker.terminate(), GRACE_MS)
  }

  /** The thread is no longer wanted. */
  async dispose(): Promise<void> {
    clearTimeout(this.#stopping)
    await this.#worker.terminate()
  }

  #post(message: ToVm): void {
    if (this.#early) this.#early.push(message)
    else this.#worker.postMessage(message)
  }
}
