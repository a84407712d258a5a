/** A VM as the main thread keeps it: its handle, its state, and the watchers of its console and events. */

import { createFlow } from '@nonroot/host-node'
import type { VmEvent } from '@nonroot/hypervisor'
import type { ControlledEnd, ControlledState, ControlledVm } from '../control/controlled-vm.ts'
import type { RequestName, Requests } from './protocol.ts'
import type { StopReason } from './run-end.ts'
import { VmHandle } from './vm-handle.ts'
import type { VmEvents } from './vm-handle.ts'

export interface WatchedPorts extends Omit<VmEvents, 'onEvent'> {
  /** The VM shall end, and why. */
  onStop(reason: StopReason): void
}

export class WatchedVm implements ControlledVm {
  readonly name: string
  readonly flow = createFlow()
  readonly handle: VmHandle
  readonly startedAt = Date.now()
  readonly ended: Promise<ControlledEnd>
  state: ControlledState = 'creating'
  status: number | undefined
  readonly #ports: WatchedPorts
  readonly #consoles = new Set<(bytes: Uint8Array) => void>()
  readonly #watchers = new Set<(event: VmEvent) => void>()
  #end!: (end: ControlledEnd) => void

  constructor(name: string, ports: WatchedPorts) {
    this.name = name
    this.#ports = ports
    this.ended = new Promise((resolve) => (this.#end = resolve))
    this.handle = new VmHandle(this.flow, {
      ...ports,
      onOutput: (bytes, done) => {
        for (const console of this.#consoles) console(bytes)
        ports.onOutput(bytes, done)
      },
      onStarted: () => {
        this.state = 'running'
        ports.onStarted()
      },
      onEvent: (event) => {
        if (event.kind === 'paused') this.state = 'paused'
        if (event.kind === 'resumed') this.state = 'running'
        for (const watcher of this.#watchers) watcher(event)
      },
    })
  }

  /** It has ended, and its owner has judged how. */
  finish(end: ControlledEnd): void {
    this.state = 'ended'
    this.status = end.status
    this.#end(end)
  }

  request<R extends RequestName>(what: R, of?: Requests[R]['of']): Promise<Requests[R]['gives'] | undefined> {
    return this.handle.request(what, of)
  }

  input(bytes: Uint8Array): void {
    this.handle.input(bytes)
  }

  stop(reason: StopReason): void {
    this.#ports.onStop(reason)
  }

  onConsole(listener: (bytes: Uint8Array) => void): () => void {
    this.#consoles.add(listener)
    return () => void this.#consoles.delete(listener)
  }

  onEvent(listener: (event: VmEvent) => void): () => void {
    this.#watchers.add(listener)
    return () => void this.#watchers.delete(listener)
  }
}
