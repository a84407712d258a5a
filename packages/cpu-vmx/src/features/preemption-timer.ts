/**
 * The VMX-preemption timer: counts down at the TSC's rate while the guest runs, and exits at 0. It is checked between pieces of a slice, which get
 * shorter towards the end: an exit is late by a few hundred instructions at most. (SDM Vol. 3C, "VMX-Preemption Timer")
 */

import type { Clock } from '@nonroot/contracts'
import { PREEMPTION_TIMER_SHIFT } from '../tables/capability-msrs.ts'
import { ExitControl, PinControl } from '../tables/controls.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

const TICKS = 2 ** PREEMPTION_TIMER_SHIFT
/** Instructions in the shortest piece: about the cost of the loop around it. */
const LEAST_PIECE = 256
/** The processor never retires more than half as many instructions per tick. */
const PIECES = 8

export class PreemptionTimer {
  private readonly vmcs: Vmcs
  private readonly clock: Clock
  /** Derived at entry: the control is set. */
  isActive = false
  private isSaved = false
  private deadline = 0

  constructor(vmcs: Vmcs, clock: Clock) {
    this.vmcs = vmcs
    this.clock = clock
  }

  /** Called after a change of the controls. */
  settle(): void {
    this.isActive = this.vmcs.has('pinControls', PinControl.activatePreemptionTimer)
    this.isSaved = this.vmcs.has('exitControls', ExitControl.savePreemptionTimer)
  }

  /** VM entry: loads the timer from its field. */
  start(): void {
    this.deadline = this.now() + this.vmcs.read32('preemptionTimer') * TICKS
  }

  /** VM exit: saves the remaining count if the control is set. */
  stop(): void {
    if (this.isSaved) this.vmcs.write32('preemptionTimer', Math.floor(this.left / TICKS))
  }

  get isExpired(): boolean {
    return this.now() >= this.deadline
  }

  /** Instructions that may run before the next check. */
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
