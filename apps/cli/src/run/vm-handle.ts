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
  onProgress(text: string, done: boolean): void
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
  #stopping: NodeJS.Timeout | undefined

  constructor(job: RunJob, events: VmEvents) {
    this.#worker = takeThread()
    this.#worker.postMessage(job)
    this.ended = new Promise((resolve, reject) => {
      this.#worker.on('message', (message: FromVm) => {
        switch (message.type) {
          case 'output':
            return events.onOutput(message.bytes, () => shown(job.flow, message.bytes.length))
          case 'log':
            return events.onLog(message.level, message.message)
          case 'progress':
            return events.onProgress(message.text, message.done)
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
    // Whoever waits for it hears of it; nobody may yet.
    this.ended.catch(() => {})
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

  /** End the VM; the thread, too, if it does not listen. */
  stop(): void {
    this.#post({ type: 'stop' })
    this.#stopping ??= setTimeout(() => void this.#worker.terminate(), GRACE_MS)
  }

  /** The thread is no longer wanted. */
  async dispose(): Promise<void> {
    clearTimeout(this.#stopping)
    await this.#worker.terminate()
  }

  #post(message: ToVm): void {
    this.#worker.postMessage(message)
  }
}
