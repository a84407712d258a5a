/** @hot The processor's doors in non-root operation: each records the exit, counts it and lets its handler answer. */

import { ACCESS, EXIT, HIDDEN_FAULT, PROCEED, S, SECOND_STAGE, STALLED } from '@nonroot/x86'
import type {
  Core,
  HiddenFaultAnswer,
  NonRoot,
  Outcome,
  SecondStageAnswer,
  SwitchOptions,
  TaskSwitchSource,
} from '@nonroot/x86'
import { recordExit } from './exit-qualification.ts'
import type { ExitReasonName } from './exit-reasons.ts'
import { DEVICE, GUEST_FAULT, HANDLERS, RETRY, type ExitResult } from './handlers.ts'
import { INTERCEPTS } from './intercepts.ts'
import type { VmxVcpu } from './vcpu.ts'

const PAGE_FAULT = 14
/** Bits that change translation: a change is told to the paging strategy. */
const CR0_PAGING = 0x8001_0001 | 0
const CR4_PAGING = 0x0032_10b0
const EFER_PAGING = 0xd00
const CR4_PCIDE = 0x2_0000

export class NonRootOperation implements NonRoot {
  private readonly vcpu: VmxVcpu
  private cr0 = 0
  private cr3Low = 0
  private cr3High = 0
  private cr4 = 0
  private efer = 0

  constructor(vcpu: VmxVcpu) {
    this.vcpu = vcpu
  }

  intercept(exit: number, core: Core): Outcome | typeof PROCEED {
    const intercept = INTERCEPTS[exit]!
    const { vcpu } = this
    if (!intercept.exits(vcpu.controls, core)) return PROCEED
    return this.exit(intercept.reason, intercept.qualification(core), 0, core.recordLength()) as
      Outcome | typeof PROCEED
  }

  /** Record, count, handle. */
  exit(reason: ExitReasonName, qualification: number, qualificationHigh: number, length: number): ExitResult {
    const { vcpu } = this
    vcpu.accounting.begin()
    vcpu.qualification = qualification
    recordExit(vcpu.vmcs, reason, qualification, qualificationHigh, length)
    const result = HANDLERS[reason](vcpu)
    vcpu.accounting.end(reason)
    return result
  }

  /** Page faults under a hardware root have been asked about already; no other vector is intercepted. A bus that stalls stops the processor. */
  exception(core: Core, vector: number): boolean {
    if (vector !== STALLED) return false
    core.set32(S.exit, EXIT.stop)
    return true
  }

  eptViolation(_core: Core, guestPhysical: number, qualification: number): SecondStageAnswer {
    const { vcpu } = this
    vcpu.faultPhysical = guestPhysical
    vcpu.vmcs.writeHalves('guestPhysicalAddress', guestPhysical >>> 0, Math.floor(guestPhysical / 0x1_0000_0000))
    const result = this.exit('eptViolation', qualification, 0, 0)
    return result === RETRY ? SECOND_STAGE.retry : result === DEVICE ? SECOND_STAGE.device : SECOND_STAGE.left
  }

  eptMisconfiguration(_core: Core, guestPhysical: number): SecondStageAnswer {
    this.vcpu.faultPhysical = guestPhysical
    this.exit('eptMisconfiguration', 0, 0, 0)
    return SECOND_STAGE.left
  }

  pageFault(core: Core, low: number, high: number, access: number): HiddenFaultAnswer {
    const { vcpu } = this
    vcpu.setFaultAddress(low, high)
    vcpu.pagingPort.guest.userPagesAllowed = (access & ACCESS.smap) === 0
    vcpu.vmcs.write32('exitInterruptionInfo', (0x8000_0b00 | PAGE_FAULT) >>> 0)
    vcpu.vmcs.write32('exitInterruptionErrorCode', core.paging.errorCode)
    switch (this.exit('exceptionOrNmi', low, high, 0)) {
      case RETRY:
        return HIDDEN_FAULT.retry
      case DEVICE:
        return HIDDEN_FAULT.device
      case GUEST_FAULT:
        return HIDDEN_FAULT.guest
      default:
        return HIDDEN_FAULT.left
    }
  }

  readTable(_core: Core, physical: number, into: Int32Array): void {
    const { guestMemory } = this.vcpu.ports
    for (let i = 0; i < into.length; i++) into[i] = guestMemory.readU32(physical + i * 4) ?? -1
  }

  pagingChanged(core: Core): void {
    const { vcpu } = this
    const { pagingPort, ports } = vcpu
    if (pagingPort.changing) return
    const cr0 = core.get32(S.cr0) & CR0_PAGING
    const cr4 = core.get32(S.cr4) & CR4_PAGING
    const efer = core.get32(S.efer) & EFER_PAGING
    const cr3Low = core.get32(S.cr3)
    const cr3High = core.get32(S.cr3 + 4)
    const rootWritten = vcpu.takeRootWrite() || cr3Low !== this.cr3Low || cr3High !== this.cr3High
    const modeChanged = cr0 !== this.cr0 || cr4 !== this.cr4 || efer !== this.efer
    this.cr0 = cr0
    this.cr4 = cr4
    this.efer = efer
    this.cr3Low = cr3Low
    this.cr3High = cr3High
    pagingPort.changing = true
    if (modeChanged) vcpu.heed(ports.paging.onModeChange(pagingPort))
    // PAE loads its PDPTEs again with some writes of CR0 and CR4, too.
    else if (pagingPort.intercepts.rootWrite && (rootWritten || pagingPort.guest.format === 'pae')) {
      const keep = (core.get32(S.cr4) & CR4_PCIDE) !== 0 && vcpu.keepsTranslations
      vcpu.heed(ports.paging.onRootWrite(pagingPort, core.get64(S.cr3), keep))
    }
    pagingPort.changing = false
  }

  taskSwitch(_core: Core, selector: number, source: TaskSwitchSource, options: SwitchOptions): Outcome {
    const { vcpu } = this
    vcpu.taskSwitch = { selector, source, options }
    return this.exit(
      'taskSwitch',
      (selector | (source << 30)) >>> 0,
      0,
      options.event ? 0 : vcpu.core.recordLength(),
    ) as Outcome
  }

  tripleFault(): void {
    this.exit('tripleFault', 0, 0, 0)
  }
}
