/** The end of a run as exit status and message. */

import { ExitCode } from '@nonroot/contracts'
import type { VmEnd } from '@nonroot/contracts'
import type { Level } from '../io.ts'
import type { CommandChannel } from './command-channel.ts'
import type { Marks } from './marks.ts'

/** How long a guest or a command that a signal asked to end may usually take. */
export const STOP_TIMEOUT = '10s'

const TWICE_MS = 100
/** Two in so short a time are one, of a terminal, that a process before us has passed on, too. */
export const isSameSignal = (before: number): boolean => performance.now() - before < TWICE_MS

export interface SignalReason {
  readonly by: 'signal'
  readonly number: number
}

/** Why we ended it, if we did. */
export type StopReason =
  | { readonly by: 'user' }
  | { readonly by: 'timeout'; readonly text: string }
  | SignalReason
  | { readonly by: 'panic'; readonly message: string }
  /** The guest's agent did not do what it should. */
  | { readonly by: 'agent'; readonly message: string }
  /** What the guest prints cannot be written. */
  | { readonly by: 'output' }
  /** The process became too large. */
  | { readonly by: 'memory'; readonly words: string }

export interface RunEnd {
  readonly status: number
  /** For standard error; nothing where all went well. */
  readonly words: string | undefined
  /** Of the words. Default: `notice`. */
  readonly level?: Level
}

const at = (rip: bigint | undefined, vcpu: number | undefined): string =>
  rip === undefined ? '' : ` at RIP 0x${rip.toString(16)}${vcpu === undefined ? '' : ` (vCPU ${vcpu})`}`

export function runEnd(end: VmEnd, stop: StopReason | undefined, rip: bigint | undefined): RunEnd {
  switch (end.state) {
    case 'poweredOff':
      return { status: stop?.by === 'signal' ? 128 + stop.number : ExitCode.ok, words: undefined }
    case 'exited':
      return { status: end.status & 0xff, words: undefined }
    case 'crashed':
      return {
        status: ExitCode.guestCrashed,
        words: `the guest crashed: ${end.reason}${at(end.rip, end.vcpu)}`,
      }
    case 'stopped':
      return stopped(stop, rip)
  }
}

/** What is known of a command, by its marks or by its agent. */
export type CommandProgress = Pick<Marks, 'begun' | 'status' | 'tail'>

export const progressOf = (marks: Marks, channel: CommandChannel | undefined): CommandProgress => ({
  begun: marks.begun || channel?.started === true,
  status: channel?.status ?? marks.status,
  tail: marks.tail,
})

/** How a run of a command ended: its status is in the exit device's word, or in the closing mark where no device took it. */
export function commandStatus(status: number, state: VmEnd['state'], marks: CommandProgress): RunEnd {
  if (state === 'exited') return { status, words: undefined }
  if (marks.status !== undefined && state === 'poweredOff') return { status: marks.status, words: undefined }
  const words = !marks.begun
    ? `the command was never started; the guest's last words:\n${marks.tail.trimEnd()}`
    : state === 'poweredOff'
      ? 'the guest powered off before the command had ended'
      : undefined
  return { status: status === ExitCode.ok ? ExitCode.guestCrashed : status, words }
}

function stopped(stop: StopReason | undefined, rip: bigint | undefined): RunEnd {
  switch (stop?.by) {
    case 'timeout':
      return { status: ExitCode.timeout, words: `the guest still ran after ${stop.text}${at(rip, undefined)}` }
    case 'signal':
      return { status: 128 + stop.number, words: undefined }
    // Reported when the streams are settled.
    case 'output':
      return { status: ExitCode.host, words: undefined }
    case 'memory':
      return { status: ExitCode.host, words: stop.words, level: 'error' }
    case 'agent':
      return { status: ExitCode.guestCrashed, words: stop.message, level: 'error' }
    case 'panic':
      return { status: ExitCode.guestCrashed, words: `the guest crashed: ${stop.message}` }
    default:
      return { status: ExitCode.ok, words: undefined }
  }
}
