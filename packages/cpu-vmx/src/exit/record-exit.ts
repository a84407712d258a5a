/** Writes the exit-information fields of the VMCS. (SDM Vol. 3C, "VM-Exit Information Fields") */

import { S } from '@nonroot/x86'
import type { Core, DeliveredEvent } from '@nonroot/x86'
import { EXIT_REASONS, ExitReasonBit, type ExitReasonName } from '../tables/exit-reasons.ts'
import { infoOfEvent, InterruptionBit, InterruptionType, interruptionType } from '../tables/interruption-info.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

/** @hot Write the exit-information fields that every exit has. */
export function recordExit(
  vmcs: Vmcs,
  reason: ExitReasonName,
  qualificationLow: number,
  qualificationHigh: number,
  instructionLength: number,
): void {
  vmcs.write32('exitReason', EXIT_REASONS[reason])
  vmcs.writeHalves('exitQualification', qualificationLow, qualificationHigh)
  vmcs.write32('exitInstructionLength', instructionLength)
}

/** What the exit before told of events does not hold for this one. */
export function forgetEvents(vmcs: Vmcs): void {
  vmcs.write32('exitInterruptionInfo', 0)
  vmcs.write32('idtVectoringInfo', 0)
}

/** An exit that an exception causes. */
export function recordInterruption(vmcs: Vmcs, info: number, errorCode: number): void {
  vmcs.write32('exitInterruptionInfo', info >>> 0)
  vmcs.write32('exitInterruptionErrorCode', errorCode)
}

/** The event whose delivery the exit cut short; of one that an instruction asked for, the instruction's length. (SDM Vol. 3C, "Information for VM Exits That Occur During Event Delivery") */
export function recordVectoring(vmcs: Vmcs, event: DeliveredEvent): void {
  vmcs.write32('exitInstructionLength', event.length)
  vmcs.write32('idtVectoringInfo', infoOfEvent(event))
  vmcs.write32('idtVectoringErrorCode', event.errorCode)
}

/** A failed entry looks like an exit with bit 31 set. */
export function recordEntryFailure(
  vmcs: Vmcs,
  reason: 'entryFailureGuestState' | 'entryFailureMsrLoading',
  qualification: number,
): void {
  vmcs.write32('exitReason', (EXIT_REASONS[reason] | ExitReasonBit.entryFailure) >>> 0)
  vmcs.writeHalves('exitQualification', qualification, 0)
}

/**
 * What every hypervisor does when an exit interrupted the delivery of an event and the guest is left: the next entry injects the event again.
 * The IDT-vectoring fields hold it.
 */
export function reinjectOnEntry(vmcs: Vmcs, core: Core): void {
  const info = vmcs.read32('idtVectoringInfo')
  vmcs.write32('entryInterruptionInfo', info & ~InterruptionBit.nmiUnblocking)
  vmcs.write32('entryExceptionErrorCode', vmcs.read32('idtVectoringErrorCode'))
  vmcs.write32('entryInstructionLength', vmcs.read32('exitInstructionLength'))
  // Its delivery had begun and blocks further NMIs; it must not block itself.
  if (interruptionType(info) === InterruptionType.nmi) core.set32(S.nmiBlocked, 0)
}
