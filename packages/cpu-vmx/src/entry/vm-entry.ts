/**
 * VM entry: signals that change what is entered, the SDM's checks, and what is settled once for the whole stay in the guest. (SDM Vol. 3C,
 * "VM Entries")
 */

import { VcpuSignal } from '@nonroot/contracts'
import { S, SEGMENT, setRealSegment } from '@nonroot/x86'
import { EntryControl, SecondaryControl } from '../tables/controls.ts'
import { failedEntryCheck, type EntryCheckContext } from './checks/index.ts'
import { recordEntryFailure } from '../exit/exit-qualification.ts'
import { settleControls } from './apply-controls.ts'
import type { VmxVcpu } from '../vcpu.ts'

const EFER_LMA = 0x400
/** Without these, instructions are undefined: `enabledBy` of the processor's rows. */
const INSTRUCTION_CONTROLS =
  SecondaryControl.enableRdtscp |
  SecondaryControl.enableInvpcid |
  SecondaryControl.enableXsaves |
  SecondaryControl.enableUserWaitAndPause

export class VmEntry {
  private readonly vcpu: VmxVcpu
  private readonly context: EntryCheckContext
  private checkedGeneration = -1
  private enabled: number | undefined

  constructor(vcpu: VmxVcpu, context: EntryCheckContext) {
    this.vcpu = vcpu
    this.context = context
  }

  /** The VMCS as it is may be entered. False: the vCPU has failed, and its message names the check. */
  check(): boolean {
    const { vcpu } = this
    const { vmcs, core } = vcpu
    // VTPR lies outside the VMCS: the guest writes it.
    const unchanged = vmcs.generation === this.checkedGeneration
    if (unchanged && !vcpu.taskPriority.isUnderThreshold) return true
    // With unrestricted guest, exits keep this control in step with EFER.LMA.
    const control = vmcs.read32('entryControls')
    const long = (core.get32(S.efer) & EFER_LMA) !== 0
    vmcs.write32('entryControls', long ? control | EntryControl.ia32eModeGuest : control & ~EntryControl.ia32eModeGuest)
    const failed = failedEntryCheck(vmcs, this.context)
    if (failed) {
      recordEntryFailure(vmcs, 'entryFailureGuestState', 0)
      vcpu.fail(`VM entry failed its check '${failed.id}' (SDM, "${failed.sdm}")`)
      return false
    }
    settleControls(vcpu)
    vcpu.timer.settle()
    vcpu.msrAreas.settle()
    vcpu.switchesState = vcpu.timer.isActive || vcpu.msrAreas.isActive
    this.settleInstructions()
    this.checkedGeneration = vmcs.generation
    vmcs.launchState = 'launched'
    if (vcpu.switchesState) vcpu.switchIn()
    return !vcpu.hasFailed
  }

  /** Entry `entry` of the MSR-load area cannot be loaded. (SDM Vol. 3C, "VM-Entry Failures During or After Loading Guest State") */
  failLoading(entry: number): void {
    recordEntryFailure(this.vcpu.vmcs, 'entryFailureMsrLoading', entry)
    this.vcpu.fail(`VM entry failed: entry ${entry} of the VM-entry MSR-load area cannot be loaded`)
  }

  /** Code is decoded with the instructions that these controls leave undefined. */
  private settleInstructions(): void {
    const enabled = this.vcpu.controls.secondary & INSTRUCTION_CONTROLS
    if (enabled !== this.enabled && this.enabled !== undefined) this.vcpu.forgetCode()
    this.enabled = enabled
  }

  takeSignals(): void {
    const { vcpu } = this
    const { interrupts } = vcpu.ports
    const signals = interrupts.signals(vcpu.index)
    if (signals & VcpuSignal.init) {
      interrupts.takeSignal(vcpu.index, VcpuSignal.init)
      this.count('init')
      vcpu.reset('init')
    }
    if (signals & VcpuSignal.startup) {
      const vector = interrupts.takeSignal(vcpu.index, VcpuSignal.startup)
      // Outside wait-for-SIPI it is lost.
      if (vcpu.activity === 'waitForStartup') {
        this.count('startup')
        setRealSegment(vcpu.core, SEGMENT.cs, vector << 8)
        vcpu.writeState({ rip: 0n, activity: 'active' })
      }
    }
    if (signals & VcpuSignal.smi) interrupts.takeSignal(vcpu.index, VcpuSignal.smi)
    if (signals & VcpuSignal.nmi) {
      interrupts.takeSignal(vcpu.index, VcpuSignal.nmi)
      vcpu.events.queueNmi()
    }
  }

  /** An exit that no door of the processor reports. */
  private count(reason: 'init' | 'startup'): void {
    this.vcpu.accounting.begin()
    this.vcpu.accounting.end(reason)
  }
}
