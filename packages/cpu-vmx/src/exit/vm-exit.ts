/** @hot The processor's hooks in non-root operation: each records a VM exit, counts it and calls the exit handler. */

import {
  ACCESS,
  EVENT,
  EXIT,
  LEFT,
  PROCEED,
  S,
  SECOND_STAGE,
  STALLED,
  WALK_FAULT,
  CR0,
  CR4,
  EFER,
  VECTOR,
} from '@nonroot/x86'
import type {
  Core,
  EventKind,
  Hooks,
  Outcome,
  SecondStageAnswer,
  SwitchOptions,
  TaskSwitchSource,
  WalkFaultAnswer,
} from '@nonroot/x86'
import { EptViolationBit } from './exit-qualification.ts'
import { forgetEvents, recordExit, recordInterruption, recordVectoring, reinjectOnEntry } from './record-exit.ts'
import type { ExitReasonName } from '../tables/exit-reasons.ts'
import { DEVICE, GUEST_FAULT, RETRY, type ExitHandlers, type ExitResult } from './exit-handler.ts'
import { INTERCEPTS, type Intercept } from './intercepts.ts'
import {
  exceptionHasErrorCode,
  interruptionInfo,
  InterruptionBit,
  InterruptionType,
} from '../tables/interruption-info.ts'
import type { VmxGuest } from '../guest.ts'

const HIDDEN_PAGE_FAULT = interruptionInfo(InterruptionType.hardwareException, VECTOR.PF, true)
/** Bits that affect translation: the paging strategy is notified of changes. */
const CR0_PAGING = CR0.pg | CR0.wp | CR0.pe
const CR4_PAGING = CR4.pse | CR4.pae | CR4.pge | CR4.la57 | CR4.pcide | CR4.smep | CR4.smap
const EFER_PAGING = EFER.lme | EFER.lma | EFER.nxe

export class VmExit implements Hooks {
  /** Called at each exit. A test, a debugger or a nested hypervisor may replace them. */
  handlers: ExitHandlers
  private readonly guest: VmxGuest
  /** The last exit wrote the fields that describe events. */
  private toldOfEvents = false
  private cr0 = 0
  private cr3Low = 0
  private cr3High = 0
  private cr4 = 0
  private efer = 0

  constructor(guest: VmxGuest, handlers: ExitHandlers) {
    this.guest = guest
    this.handlers = handlers
  }

  intercept(exit: number): Outcome | typeof PROCEED {
    const intercept = INTERCEPTS[exit]!
    const { guest } = this
    const { core } = guest
    if (!intercept.exits(guest.controls, core)) return PROCEED
    core.settleRip()
    if (intercept.describe !== undefined) return this.describedExit(intercept, core)
    return this.exit(intercept.reason, intercept.qualification(core, intercept.fixed), 0, core.recordLength()) as
      Outcome | typeof PROCEED
  }

  /** An exit that reports its instruction's operands. */
  private describedExit({ reason, describe }: Intercept, core: Core): Outcome | typeof PROCEED {
    const { vmcs } = this.guest
    const { qualification, information, linearAddress } = describe!(core)
    vmcs.write32('exitInstructionInfo', information)
    if (linearAddress !== undefined) vmcs.store('guestLinearAddress', linearAddress)
    const low = Number(qualification & 0xffff_ffffn)
    const high = Number(BigInt.asUintN(64, qualification) >> 32n)
    return this.exit(reason, low, high, core.recordLength()) as Outcome | typeof PROCEED
  }

  /** TPR below threshold: exits after the instruction that wrote it, before the next entry is checked. */
  exitBelowThreshold(): void {
    this.guest.taskPriority.isBelow = false
    this.exit('tprBelowThreshold', 0, 0, 0)
  }

  isUndefined(control: string): boolean {
    return !this.guest.controls.enables(control)
  }

  /** Logs the page before its dirty flag is set. Exits first if the log is full. */
  pageModified(guestPhysical: number): boolean {
    const { core, modificationLog } = this.guest
    if (!modificationLog.isActive) return true
    while (modificationLog.isFull) {
      const unblocking = core.unblocksNmi && !core.delivering ? EptViolationBit.nmiUnblocking : 0
      if (this.exit('pageModificationLogFull', unblocking, 0, 0) === LEFT) return false
    }
    modificationLog.append(guestPhysical)
    return true
  }

  /** Records, counts and handles an exit. `interruption` and `errorCode`: of the exception that caused it. */
  exit(
    reason: ExitReasonName,
    qualification: number,
    qualificationHigh: number,
    length: number,
    interruption = 0,
    errorCode = 0,
  ): ExitResult {
    const { guest } = this
    const { vmcs, core } = guest
    const { delivering } = core
    guest.accounting.begin()
    if (guest.switchesState) guest.switchOut()
    guest.current.qualification = qualification
    recordExit(vmcs, reason, qualification, qualificationHigh, length)
    if (this.toldOfEvents) forgetEvents(vmcs)
    this.toldOfEvents = delivering !== undefined || interruption !== 0
    if (delivering !== undefined) recordVectoring(vmcs, delivering)
    if (interruption !== 0) recordInterruption(vmcs, interruption, errorCode)
    const result = this.handlers[reason](guest)
    guest.accounting.end(reason)
    if (guest.switchesState) guest.switchIn()
    if (result === LEFT) this.leftGuest(delivering !== undefined)
    guest.noticeKick()
    return result
  }

  /** After an exit in the middle of an instruction or delivery, what every hypervisor does before it enters again. */
  private leftGuest(duringDelivery: boolean): void {
    const { core, vmcs } = this.guest
    if (duringDelivery) {
      const { kind } = core.delivering!
      this.guest.owesInstruction = kind !== EVENT.external && kind !== EVENT.nmi
      reinjectOnEntry(vmcs, core)
    }
    // IRET will run again: NMIs stay blocked until then.
    if (core.unblocksNmi) core.set32(S.nmiBlocked, 1)
  }

  /** A stalled bus access stops the processor; otherwise the exception bitmap decides. */
  exception(vector: number, errorCode: number, kind: EventKind = EVENT.exception, length = 0): boolean {
    const { core } = this.guest
    if (vector === STALLED) return this.stall(core)
    if (!this.guest.controls.exceptionExits(core, vector, errorCode)) return false
    const { guest } = this
    const hasErrorCode = kind === EVENT.exception && exceptionHasErrorCode(vector) && (core.get32(S.cr0) & CR0.pe) !== 0
    const info = interruptionInfo(kind, vector, hasErrorCode) | this.nmiUnblocking(vector)
    const { faultLow, faultHigh } = core.paging
    guest.current.isHidden = false
    const result =
      vector === VECTOR.PF
        ? this.exit('exceptionOrNmi', faultLow, faultHigh, length, info, errorCode)
        : this.exit('exceptionOrNmi', vector === VECTOR.DB ? core.pendingDebug : 0, 0, length, info, errorCode)
    if (result === PROCEED) return false
    // The handler has set RIP, or the instruction will run again.
    if (result !== LEFT) core.set32(S.exit, EXIT.stop)
    return true
  }

  /** The access waits for its device: an event that was being delivered will be delivered again. */
  private stall(core: Core): true {
    core.set32(S.exit, EXIT.abandoned)
    const { delivering } = core
    if (delivering) recordVectoring(this.guest.vmcs, delivering)
    this.toldOfEvents ||= delivering !== undefined
    this.leftGuest(delivering !== undefined)
    return true
  }

  /** Bit 12 of the exit-interruption information. (SDM Vol. 3C, "Information for VM Exits Due to Vectored Events") */
  private nmiUnblocking(vector: number): number {
    const { unblocksNmi, delivering } = this.guest.core
    return unblocksNmi && !delivering && vector !== VECTOR.DF ? InterruptionBit.nmiUnblocking : 0
  }

  secondStageViolation(guestPhysical: number, qualification: number): SecondStageAnswer {
    const { guest } = this
    const { core, vmcs } = guest
    const { linearLow, linearHigh } = core.paging
    guest.current.physical = guestPhysical
    vmcs.writeHalves('guestPhysicalAddress', guestPhysical >>> 0, Math.floor(guestPhysical / 0x1_0000_0000))
    vmcs.writeHalves('guestLinearAddress', linearLow >>> 0, linearHigh >>> 0)
    const unblocking = core.unblocksNmi && !core.delivering ? EptViolationBit.nmiUnblocking : 0
    const result = this.exit('eptViolation', qualification | unblocking, 0, 0)
    return result === RETRY ? SECOND_STAGE.retry : result === DEVICE ? SECOND_STAGE.device : SECOND_STAGE.left
  }

  secondStageMisconfiguration(guestPhysical: number): SecondStageAnswer {
    const { guest } = this
    guest.current.physical = guestPhysical
    guest.vmcs.writeHalves('guestPhysicalAddress', guestPhysical >>> 0, Math.floor(guestPhysical / 0x1_0000_0000))
    this.exit('eptMisconfiguration', 0, 0, 0)
    return SECOND_STAGE.left
  }

  walkFault(low: number, high: number, access: number): WalkFaultAnswer {
    const { guest } = this
    guest.current.setLinear(low, high)
    guest.current.isHidden = true
    guest.pagingPort.guest.userPagesAllowed = (access & ACCESS.smap) === 0
    const info = HIDDEN_PAGE_FAULT | this.nmiUnblocking(VECTOR.PF)
    switch (this.exit('exceptionOrNmi', low, high, 0, info, guest.core.paging.errorCode)) {
      case RETRY:
        return WALK_FAULT.retry
      case DEVICE:
        return WALK_FAULT.device
      case GUEST_FAULT:
        return WALK_FAULT.guest
      default:
        return WALK_FAULT.left
    }
  }

  readTable(physical: number, into: Int32Array): void {
    const { guestMemory } = this.guest.ports
    for (let i = 0; i < into.length; i++) into[i] = guestMemory.readU32(physical + i * 4) ?? -1
  }

  pagingChanged(): void {
    const { guest } = this
    const { core, pagingPort, ports } = guest
    if (pagingPort.changing) return
    const cr0 = core.get32(S.cr0) & CR0_PAGING
    const cr4 = core.get32(S.cr4) & CR4_PAGING
    const efer = core.get32(S.efer) & EFER_PAGING
    const cr3Low = core.get32(S.cr3)
    const cr3High = core.get32(S.cr3 + 4)
    const rootWritten = guest.current.takeRootWrite() || cr3Low !== this.cr3Low || cr3High !== this.cr3High
    const modeChanged = cr0 !== this.cr0 || cr4 !== this.cr4 || efer !== this.efer
    this.cr0 = cr0
    this.cr4 = cr4
    this.efer = efer
    this.cr3Low = cr3Low
    this.cr3High = cr3High
    pagingPort.changing = true
    if (modeChanged) guest.accept(ports.paging.onModeChange(pagingPort))
    // Under PAE some writes of CR0 and CR4 also reload the PDPTEs.
    else if (pagingPort.intercepts.rootWrite && (rootWritten || pagingPort.guest.format === 'pae')) {
      const keep = (core.get32(S.cr4) & CR4.pcide) !== 0 && guest.current.keepsTranslations
      guest.accept(ports.paging.onRootWrite(pagingPort, core.get64(S.cr3), keep))
    }
    pagingPort.changing = false
  }

  taskSwitch(selector: number, source: TaskSwitchSource, options: SwitchOptions): Outcome {
    const { guest } = this
    guest.current.taskSwitch = { selector, source, options }
    return this.exit(
      'taskSwitch',
      (selector | (source << 30)) >>> 0,
      0,
      options.event ? 0 : guest.core.recordLength(),
    ) as Outcome
  }

  tripleFault(): void {
    this.exit('tripleFault', 0, 0, 0)
  }
}
