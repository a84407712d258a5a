/** What the `Vcpu` contract asks of every CPU mode on the software processor, but for the loop and its events. */

import type { KickAddress, Metrics, Snapshot, VcpuEvent, VcpuExit, VcpuState, VcpuStatePatch, X86Vcpu } from '@nonroot/contracts'
import { gpr, RAX, readRegisters, TIER_METRICS, tierStatistics } from '@nonroot/x86'
import type { Core, Processor, StopReason, TierMetric } from '@nonroot/x86'
import type { VcpuGuest } from './guest.ts'

export abstract class ProcessorVcpu<G extends VcpuGuest = VcpuGuest> implements X86Vcpu {
  readonly index: number
  readonly guest: G

  constructor(guest: G) {
    this.index = guest.index
    this.guest = guest
  }

  get core(): Core {
    return this.guest.core
  }
  get kickAddress(): KickAddress {
    return this.guest.processor.kicks.address
  }

  run(budget: number): VcpuExit {
    const { guest } = this
    const { bus, processor } = guest
    const { deferred } = bus
    if (deferred) {
      bus.deferred = undefined
      bus.complete(deferred, guest.exits.answer(deferred))
    }
    const end = processor.retired + budget
    guest.running = true
    processor.kicks.enter()
    try {
      return this.loop(end)
    } finally {
      guest.running = false
      processor.kicks.leave()
    }
  }
  /** Runs the guest until an exit, or until `end` instructions have retired. */
  protected abstract loop(end: number): VcpuExit

  /** The exit that a stop of the processor amounts to; undefined: the guest goes on. */
  protected act(stop: StopReason | undefined): VcpuExit | undefined {
    const { guest } = this
    if (guest.failure !== undefined) return guest.exits.failure(guest.core, guest.failure)
    switch (stop) {
      case 'halt':
        guest.activity = 'halted'
        return undefined
      case 'shutdown':
        guest.activity = 'shutdown'
        return guest.exits.shutdown
      case 'stop':
        return guest.takeExit()
      default:
        return undefined
    }
  }

  get instructionsRetired(): number {
    return this.guest.processor.retired
  }
  get firstInstructionAt(): number | undefined {
    return this.guest.processor.firstBlockAt
  }
  kick(): void {
    this.guest.kick()
  }
  completeHypercall(result: bigint): void {
    this.core.set64(gpr(RAX), result)
  }
  translate(address: bigint): number | undefined {
    return this.guest.translate(address)
  }
  readState(): VcpuState {
    return { ...readRegisters(this.core), activity: this.guest.activity }
  }
  writeState(patch: VcpuStatePatch): void {
    this.guest.writeState(patch)
  }
  sampleMetrics(): void {
    sampleTiers(this.guest.processor, this.guest.ports.metrics)
  }
  dispose(): void {
    this.guest.dispose()
  }

  abstract inject(event: VcpuEvent): void
  abstract get interruptWindow(): boolean
  abstract reset(kind: 'powerUp' | 'init'): void
  abstract save(): Snapshot
  abstract restore(snapshot: Snapshot): void
}

/** Gauges of what the processor's tiers did. */
export function sampleTiers(processor: Processor, metrics: Metrics): void {
  const scope = metrics.scope('tiers')
  for (const [name, value] of Object.entries(tierStatistics(processor))) {
    const { unit, help } = TIER_METRICS[name as TierMetric]
    scope.gauge(name, help, unit).value = value
  }
}
