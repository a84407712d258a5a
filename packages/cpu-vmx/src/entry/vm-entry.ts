/**
 * VM entry: takes signals that change the guest's state, makes the SDM's checks, and derives from the controls what holds until the next exit. (SDM
 * Vol. 3C, "VM Entries")
 */

import { VcpuSignal } from '@nonroot/contracts'
import { S, SEGMENT, setRealSegment, EFER } from '@nonroot/x86'
import { EntryControl, SecondaryControl } from '../tables/controls.ts'
import { failedEntryCheck, type EntryCheckContext } from './checks/index.ts'
import { recordEntryFailure } from '../exit/record-exit.ts'
import type { EventInjection } from './event-injection.ts'
import type { VmxGuest } from '../guest.ts'

/** Without these, instructions are undefined: `enabledBy` of the processor's rows. */
const INSTRUCTION_CONTROLS =
  SecondaryControl.enableRdtscp |
  SecondaryControl.enableInvpcid |
  SecondaryControl.enableXsaves |
  SecondaryControl.enableUserWaitAndPause

export class VmEntry {
  private readonly guest: VmxGuest
  private readonly events: EventInjection
  private readonly context: EntryCheckContext
  private checkedGeneration = -1
  private enabled: number | undefined

  constructor(guest: VmxGuest, events: EventInjection, context: EntryCheckContext) {
    this.guest = guest
    this.events = events
    this.context = context
  }

  /** Whether the VMCS may be entered. If not, the vCPU has failed with a message that names the check. */
  check(): boolean {
    const { guest } = this
    const { vmcs, core } = guest
    // VTPR is outside the VMCS: the guest writes it.
    const unchanged = vmcs.generation === this.checkedGeneration
    if (unchanged && !guest.taskPriority.isUnderThreshold) return true
    // With unrestricted guest, exits copy EFER.LMA to this control.
    const control = vmcs.read32('entryControls')
    const long = (core.get32(S.efer) & EFER.lma) !== 0
    vmcs.write32('entryControls', long ? control | EntryControl.ia32eModeGuest : control & ~EntryControl.ia32eModeGuest)
    const failed = failedEntryCheck(vmcs, this.context)
    if (failed) {
      recordEntryFailure(vmcs, 'entryFailureGuestState', 0)
      guest.fail(`VM entry failed its check '${failed.id}' (SDM, "${failed.sdm}")`)
      return false
    }
    guest.applyControls()
    guest.timer.settle()
    guest.msrAreas.settle()
    guest.switchesState = guest.timer.isActive || guest.msrAreas.isActive
    this.settleInstructions()
    this.checkedGeneration = vmcs.generation
    vmcs.launchState = 'launched'
    if (guest.switchesState) guest.switchIn()
    return guest.failure === undefined
  }

  /** Decoded code depends on which instructions these controls leave undefined. */
  private settleInstructions(): void {
    const enabled = this.guest.controls.secondary & INSTRUCTION_CONTROLS
    if (enabled !== this.enabled && this.enabled !== undefined) this.guest.processor.blocks.reset()
    this.enabled = enabled
  }

  takeSignals(): void {
    const { guest } = this
    const { interrupts } = guest.ports
    const signals = interrupts.signals(guest.index)
    if (signals & VcpuSignal.init) {
      interrupts.takeSignal(guest.index, VcpuSignal.init)
      this.count('init')
      guest.reset('init')
      this.events.forget()
    }
    if (signals & VcpuSignal.startup) {
      const vector = interrupts.takeSignal(guest.index, VcpuSignal.startup)
      // Ignored unless the vCPU waits for SIPI.
      if (guest.activity === 'waitForStartup') {
        this.count('startup')
        setRealSegment(guest.core, SEGMENT.cs, vector << 8)
        guest.writeState({ rip: 0n, activity: 'active' })
      }
    }
    if (signals & VcpuSignal.smi) interrupts.takeSignal(guest.index, VcpuSignal.smi)
    while (interrupts.signals(guest.index) & VcpuSignal.nmi) {
      interrupts.takeSignal(guest.index, VcpuSignal.nmi)
      this.events.queueNmi()
    }
  }

  /** An exit that no hook of the processor reports. */
  private count(reason: 'init' | 'startup'): void {
    this.guest.accounting.begin()
    this.guest.accounting.end(reason)
  }
}
