/** A VM as the main thread keeps it: its handle, its state, and the watchers of its console and events. */

import { createFlow } from '@nonroot/host-node'
import type { VmEvent } from '@nonroot/hypervisor'
import type { ControlledEnd, ControlledState, ControlledVm } from '../control/controlled-vm.ts'
import type { BootPlan } from './boot-plan.ts'
import type { GuestAgent } from './guest-agent.ts'
import type { RequestName, Requests } from './protocol.ts'
import type { TerminalSize } from '@nonroot/host-node'
import type { StopReason } from './run-end.ts'
import { VmHandle } from './vm-handle.ts'
import type { VmEvents } from './vm-handle.ts'

export interface WatchedPorts extends Omit<VmEvents, 'onEvent' | 'onAgent'> {
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
  agent: GuestAgent | undefined
  noAgent: string | undefined
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
      onAgent: (bytes) => this.agent?.client.receive(bytes),
      onStarted: () => {
        this.state = 'running'
        ports.onStarted()
      },
      onEvent: (event) => {
        if (event.kind === 'paused') this.state = 'paused'
        if (event.kind === 'resumed') this.state = 'running'
        if (event.kind === 'reset') this.agent?.reset()
        for (const watcher of this.#watchers) watcher(event)
      },
    })
  }

  /** The guest's agent, by the port that the plan has for it. */
  async planAgent({ agentPort, noAgent }: Pick<BootPlan, 'agentPort' | 'noAgent'>): Promise<GuestAgent | undefined> {
    this.noAgent = noAgent
    if (agentPort === undefined) return undefined
    const { GuestAgent: Agent } = await import('./guest-agent.ts')
    return (this.agent = new Agent((bytes) => this.handle.agent(bytes)))
  }

  /** It has ended, and its owner has judged how. */
  finish(end: ControlledEnd): void {
    this.state = 'ended'
    this.status = end.status
    this.agent?.end()
    this.#end(end)
  }

  request<R extends RequestName>(what: R, of?: Requests[R]['of']): Promise<Requests[R]['gives'] | undefined> {
    return this.handle.request(what, of)
  }

  input(bytes: Uint8Array): void {
    this.handle.input(bytes)
  }

  resizeConsole(size: TerminalSize): void {
    this.handle.resize(size.columns, size.rows)
    this.agent?.resizeConsole(size)
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
