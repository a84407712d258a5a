/** What the main thread and the VM's thread say to each other. The main thread has the terminal, the other one the guest. */

import type { MetricSample, VmEnd } from '@nonroot/contracts'
import type { LogLevel, VmInfo } from '@nonroot/hypervisor'
import type { FoldedStack } from '../profile/profiler.ts'
import type { StartMarks } from './start-times.ts'

/** What to run. */
export interface RunJob {
  readonly stackFile: string
  /** `KEY=VALUE`, as after `--set`. */
  readonly set: readonly string[]
  /** A disk to attach, and to boot from. */
  readonly disk?: string
  readonly kernel?: string
  readonly initrd?: string
  readonly cmdline?: string
  /** Run this in the guest instead of a shell. */
  readonly command?: readonly string[]
  /** A person sits there: the guest should know the screen. */
  readonly terminal?: { readonly columns: number; readonly rows: number; readonly name?: string }
  /** Input comes from a person, not from a file or another program. */
  readonly interactive: boolean
  readonly trace: boolean
  /** Sample where the guest is; symbols come from this file, or from the kernel's image. */
  readonly profile?: { readonly symbols?: string }
  readonly logLevel: LogLevel
  readonly loadLimitMs?: number
  /** Bytes sent and not shown yet. */
  readonly flow: Int32Array
}

export interface TraceEvents {
  /** Names of tracks and slices, by number. New ones since the last message. */
  readonly names: readonly string[]
  /** Track, name, start and end in milliseconds, for each slice. */
  readonly slices: Float64Array
  /** Samples of counters: name, milliseconds, value. */
  readonly counters: Float64Array
}

/** Answers by question. */
export interface Requests {
  info: VmInfo
  stats: readonly MetricSample[]
  pause: true
  resume: true
  reset: true
  powerButton: boolean
}
export type RequestName = keyof Requests

/** What the thread is told after the first message, the job. */
export type ToVm =
  | { readonly type: 'input'; readonly bytes: Uint8Array }
  /** No more input will come. */
  | { readonly type: 'inputEnd' }
  | { readonly type: 'resize'; readonly columns: number; readonly rows: number }
  | { readonly type: 'request'; readonly id: number; readonly what: RequestName }
  | { readonly type: 'stop' }

export type FromVm =
  | { readonly type: 'output'; readonly bytes: Uint8Array }
  | { readonly type: 'log'; readonly level: LogLevel; readonly message: string }
  | { readonly type: 'progress'; readonly text: string; readonly done: boolean }
  /** The guest is about to run. */
  | { readonly type: 'started' }
  | { readonly type: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly type: 'trace'; readonly events: TraceEvents }
  | {
      readonly type: 'ended'
      readonly end: VmEnd
      readonly stats: readonly MetricSample[]
      readonly info: VmInfo
      readonly marks: StartMarks
      readonly profile?: readonly FoldedStack[]
    }
  | { readonly type: 'failed'; readonly error: SentError }

/** An error on its way between threads. */
export interface SentError {
  /** As `NonrootError.toJSON`; undefined for anything else. */
  readonly known: Record<string, unknown> | undefined
  readonly message: string
  readonly stack: string | undefined
}
