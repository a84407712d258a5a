/**
 * The VMX-preemption timer: counts down at the TSC's rate while the guest runs, and exits at 0. Looked at between pieces of a slice, which
 * get shorter as the end comes near: an exit is late by a few hundred instructions at most. (SDM Vol. 3C, "VMX-Preemption Timer")
 */

import type { Clock } from '@nonroot/contracts'
import { PREEMPTION_TIMER_SHIFT } from '../tables/capability-msrs.ts'
import { ExitControl, PinControl } from '../tables/controls.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

const TICKS = 2 ** PREEMPTION_TIMER_SHIFT
/** Instructions of the shortest piece: the loop around it costs about as much as these. */
const LEAST_PIECE = 256
/** This processor never retires more instructions a tick than half of these. */
const PIECES = 8

export class PreemptionTimer {
  private readonly vmcs: Vmcs
  private readonly clock: Clock
  /** Settled at entry: the guest runs under it. */
  isActive = false
  private isSaved = false
  private deadline = 0

  constructor(vmcs: Vmcs, clock: Clock) {
    this.vmcs = vmcs
    this.clock = clock
  }

  /** The controls have changed. */
  settle(): void {
    this.isActive = this.vmcs.has('pinControls', PinControl.activatePreemptionTimer)
    this.isSaved = this.vmcs.has('exitControls', ExitControl.savePreemptionTimer)
  }

  /** VM entry: loaded from its field. */
  start(): void {
    this.deadline = this.now() + this.vmcs.read32('preemptionTimer') * TICKS
  }

  /** VM exit: what is left goes back, if the control says so. */
  stop(): void {
    if (this.isSaved) this.vmcs.write32('preemptionTimer', Math.floor(this.left / TICKS))
  }

  get isExpired(): boolean {
    return this.now() >= this.deadline
  }

  /** Instructions that may run before the next look. */
  piece(most: number): number {
    return Math.min(most, Math.max(LEAST_PIECE, Math.floor(this.left / PIECES)))
  }

  private get left(): number {
    return Math.max(0, this.deadline - this.now())
  }
  private now(): number {
    return Number(this.clock.tsc())
  }
}
