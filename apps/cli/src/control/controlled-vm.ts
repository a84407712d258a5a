/** A VM as its control sockets see it. Independent of protocols. */

import type { VmEnd } from '@nonroot/contracts'
import type { TerminalSize } from '@nonroot/host-node'
import type { VmEvent } from '@nonroot/hypervisor'
import type { GuestAgent } from '../run/guest-agent.ts'
import type { RequestName, Requests } from '../run/protocol.ts'
import type { StopReason } from '../run/run-end.ts'

/** `creating` → `running` ⇄ `paused` → `ended`. */
export type ControlledState = 'creating' | 'running' | 'paused' | 'ended'

/** How it ended, for its clients. */
export interface ControlledEnd {
  readonly status: number
  /** Undefined: it could not be made, or its thread failed. */
  readonly end: VmEnd | undefined
  /** Why it was stopped from outside, if it was. */
  readonly stop: StopReason | undefined
}

export interface ControlledVm {
  readonly name: string
  readonly state: ControlledState
  /** Milliseconds since the epoch. */
  readonly startedAt: number
  /** Set when it has ended. */
  readonly status: number | undefined
  readonly ended: Promise<ControlledEnd>
  /** Undefined where the machine has no port for one, and `noAgent` says why. */
  readonly agent: GuestAgent | undefined
  readonly noAgent: string | undefined
  /** Undefined: the VM is not there yet, or no more. */
  request<R extends RequestName>(what: R, of?: Requests[R]['of']): Promise<Requests[R]['gives'] | undefined>
  /** Ends it from outside. */
  stop(reason: StopReason): void
  /** Typed at its console. */
  input(bytes: Uint8Array): void
  /** The terminal at the console has another size. */
  resizeConsole(size: TerminalSize): void
  /** Calls the listener with all that the guest prints from now on. Call the result to stop. */
  onConsole(listener: (bytes: Uint8Array) => void): () => void
  onEvent(listener: (event: VmEvent) => void): () => void
}

/** All VMs of a `nonroot run`. */
export interface ControlledHost {
  /** The stack file. */
  readonly file: string
  readonly vms: readonly ControlledVm[]
}
