/** Messages between the main thread, which has the terminal, and the VM's thread. */

import type { MessagePort } from 'node:worker_threads'
import type { BootImage, HostFunctionInfo, MemoryUse, MetricSample, VmEnd } from '@nonroot/contracts'
import type { LoadedConfig, LogLevel, VmEvent, VmInfo } from '@nonroot/hypervisor'
import type { FoldedStack } from '../profile/profiler.ts'
import type { Announced } from './guest-input.ts'
import type { ImageAddition } from './image-addition.ts'
import type { StartMarks } from './start-times.ts'

/** The first message to the thread: the VMs that it runs, on one host. */
export interface HostJob {
  /** What the VMs share, if there are several: the configuration without them, and the host's memory. */
  readonly host?: { readonly config?: LoadedConfig; readonly memory: WebAssembly.Memory }
  readonly logLevel: LogLevel
  readonly loadLimitMs?: number
  /** Folder in which compiled guest code is remembered. Absent: in none. */
  readonly codeFolder?: string
  readonly vms: readonly { readonly job: RunJob; readonly port: MessagePort }[]
}

/** What to run, planned. */
export interface RunJob {
  readonly name: string
  /** The stack file, and as after `--set` what is changed of it; then what is changed of the VM's part. */
  readonly stackFile: string
  readonly set: readonly string[]
  readonly planned: readonly string[]
  /** The VM's configuration with all of that. Absent: it is code, and has what cannot be sent. */
  readonly config?: LoadedConfig
  /** In place of the files that the configuration then names. */
  readonly image?: BootImage
  /** What the image gets besides. */
  readonly addition?: ImageAddition
  /** What our init will announce on the console, with marks around a command's output. */
  readonly announced: Announced
  /** The console back end of the port by which the guest's agent is reached, if the machine has one. */
  readonly agentPort?: string
  readonly terminal?: TerminalKind
  /** Input comes from a person, not from a file or another program. */
  readonly interactive: boolean
  readonly trace: boolean
  /** Sample where the guest is; symbols come from this file, or from the kernel's image. */
  readonly profile?: { readonly symbols?: string }
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

/** Questions to a VM, what each says, and its answer. */
export interface Requests {
  info: { of: undefined; gives: VmInfo }
  stats: { of: undefined; gives: readonly MetricSample[] }
  /** Of the host: all VMs of the thread. */
  hostStats: { of: undefined; gives: readonly MetricSample[] }
  memory: { of: undefined; gives: MemoryUse }
  hostMemory: { of: undefined; gives: HostMemoryUse }
  hostFunctions: { of: undefined; gives: readonly HostFunctionInfo[] }
  disks: { of: undefined; gives: readonly DiskInfo[] }
  pause: { of: undefined; gives: true }
  resume: { of: undefined; gives: true }
  reset: { of: undefined; gives: true }
  powerButton: { of: undefined; gives: boolean }
  /** Gives how many network cards there are, or have that name. */
  plug: { of: { readonly on: boolean; readonly device?: string }; gives: number }
  /** Frames that the guest shall manage with. */
  requestMemory: { of: number; gives: boolean }
}
export type RequestName = keyof Requests

/** The host's memory, in frames: what guests and their page tables may use, and all of it, processors' code included. */
export interface HostMemoryUse {
  readonly guestFrames: number
  readonly freeGuestFrames: number
  readonly totalFrames: number
  readonly freeFrames: number
}

/** A disk of a machine. */
export interface DiskInfo {
  readonly device: string
  readonly kind: string
  readonly image: string
  readonly readOnly: boolean
}

/** What is sent to a VM of the thread, through its port. */
export type ToVm =
  | { readonly type: 'input'; readonly bytes: Uint8Array }
  /** Of the agent's port. */
  | { readonly type: 'agent'; readonly bytes: Uint8Array }
  /** No more input will come. */
  | { readonly type: 'inputEnd' }
  | { readonly type: 'resize'; readonly columns: number; readonly rows: number }
  | { readonly type: 'request'; readonly id: number; readonly what: RequestName; readonly of: unknown }
  | { readonly type: 'stop' }

export type FromVm =
  | { readonly type: 'output'; readonly bytes: Uint8Array }
  /** Of the agent's port. */
  | { readonly type: 'agent'; readonly bytes: Uint8Array }
  | { readonly type: 'log'; readonly level: LogLevel; readonly message: string }
  /** The guest is about to run. */
  | { readonly type: 'started' }
  | { readonly type: 'reply'; readonly id: number; readonly value: unknown }
  | { readonly type: 'event'; readonly event: VmEvent }
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
