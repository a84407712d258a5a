/** Writes the exit-information fields of the VMCS. (SDM Vol. 3C, "VM-Exit Information Fields") */

import { S } from '@nonroot/x86'
import type { Core, DeliveredEvent } from '@nonroot/x86'
import { EXIT_REASONS, ExitReasonBit, type ExitReasonName } from '../tables/exit-reasons.ts'
import { infoOfEvent, InterruptionBit, InterruptionType, interruptionType } from '../tables/interruption-info.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

/** @hot Writes the exit-information fields that every exit has. */
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

/** Clears what the previous exit reported of events. */
export function forgetEvents(vmcs: Vmcs): void {
  vmcs.write32('exitInterruptionInfo', 0)
  vmcs.write32('idtVectoringInfo', 0)
}

/** An exit caused by an exception. */
export function recordInterruption(vmcs: Vmcs, info: number, errorCode: number): void {
  vmcs.write32('exitInterruptionInfo', info >>> 0)
  vmcs.write32('exitInterruptionErrorCode', errorCode)
}

/**
 * The event whose delivery the exit interrupted, with the instruction length if an instruction caused it. (SDM Vol. 3C, "Information for VM Exits
 * That Occur During Event Delivery")
 */
export function recordVectoring(vmcs: Vmcs, event: DeliveredEvent): void {
  vmcs.write32('exitInstructionLength', event.length)
  vmcs.write32('idtVectoringInfo', infoOfEvent(event))
  vmcs.write32('idtVectoringErrorCode', event.errorCode)
}

/** A failed entry is reported as an exit with bit 31 set. */
export function recordEntryFailure(
  vmcs: Vmcs,
  reason: 'entryFailureGuestState' | 'entryFailureMsrLoading',
  qualification: number,
): void {
  vmcs.write32('exitReason', (EXIT_REASONS[reason] | ExitReasonBit.entryFailure) >>> 0)
  vmcs.writeHalves('exitQualification', qualification, 0)
}

/**
 * What every hypervisor does if an exit interrupted the delivery of an event: the next entry injects that event again, from the IDT-vectoring fields.
 */
export function reinjectOnEntry(vmcs: Vmcs, core: Core): void {
  const info = vmcs.read32('idtVectoringInfo')
  vmcs.write32('entryInterruptionInfo', info & ~InterruptionBit.nmiUnblocking)
  vmcs.write32('entryExceptionErrorCode', vmcs.read32('idtVectoringErrorCode'))
  vmcs.write32('entryInstructionLength', vmcs.read32('exitInstructionLength'))
  // Its delivery had begun and blocks further NMIs; it must not block itself.
  if (interruptionType(info) === InterruptionType.nmi) core.set32(S.nmiBlocked, 0)
}
