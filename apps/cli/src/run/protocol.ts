/** What the main thread and the VM's thread say to each other. The main thread has the terminal, the other one the guest. */

import type { BootImage, MetricSample, VmEnd } from '@nonroot/contracts'
import type { LoadedConfig, LogLevel, VmInfo } from '@nonroot/hypervisor'
import type { FoldedStack } from '../profile/profiler.ts'
import type { Announced } from './guest-input.ts'
import type { ImageAddition } from './image-addition.ts'
import type { StartMarks } from './start-times.ts'

/** What to run, planned. */
export interface RunJob {
  /** The configuration with all changes: the stack file and, as after `--set`, what is changed of it. */
  readonly stackFile: string
  readonly set: readonly string[]
  /** The same, read. Absent: it is code, and has what cannot be sent. */
  readonly config?: LoadedConfig
  /** In place of the files that the configuration then names. */
  readonly image?: BootImage
  /** What the image gets besides. */
  readonly addition?: ImageAddition
  /** What our init will announce on the console, with marks around a command's output. */
  readonly announced: Announced
  readonly terminal?: TerminalKind
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

/** A person sits there: the guest should know the screen. */
export interface TerminalKind {
  readonly columns: number
  readonly rows: number
  readonly name?: string
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
  /** How many network cards there are. */
  plug: number
  unplug: number
}
export type RequestName = keyof Requests

/** What is sent to the thread after the first message, the job. */
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
