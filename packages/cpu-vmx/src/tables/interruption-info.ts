/** Interruption information: the format that entry injection, exit and IDT-vectoring fields share. (SDM Vol. 3C, "VM-Entry Controls for Event Injection") */

import type { DeliveredEvent, EventKind } from '@nonroot/x86'

export const InterruptionType = {
  externalInterrupt: 0,
  nmi: 2,
  hardwareException: 3,
  softwareInterrupt: 4,
  privilegedSoftwareException: 5,
  softwareException: 6,
  otherEvent: 7,
} as const
export type InterruptionType = (typeof InterruptionType)[keyof typeof InterruptionType]

export const InterruptionBit = {
  errorCodeValid: 1 << 11,
  /** Exit information only: an IRET that unblocked NMIs faulted. */
  nmiUnblocking: 1 << 12,
  valid: 1 << 31,
} as const

export const interruptionInfo = (type: InterruptionType, vector: number, withErrorCode = false): number =>
  (InterruptionBit.valid | (withErrorCode ? InterruptionBit.errorCodeValid : 0) | (type << 8) | vector) >>> 0

export const interruptionVector = (info: number): number => info & 0xff
export const interruptionType = (info: number): InterruptionType => ((info >>> 8) & 7) as InterruptionType
export const isInterruptionValid = (info: number): boolean => (info & InterruptionBit.valid) !== 0
export const hasInterruptionErrorCode = (info: number): boolean => (info & InterruptionBit.errorCodeValid) !== 0

/** The event as the processor delivers it; its kinds have the numbers of these fields. */
export const eventFromInfo = (info: number, errorCode: number, length: number): DeliveredEvent => {
  const kind = interruptionType(info)
  const hasErrorCode = hasInterruptionErrorCode(info)
  return {
    kind: kind as EventKind,
    vector: interruptionVector(info),
    errorCode: hasErrorCode ? errorCode : 0,
    hasErrorCode,
    length: kind >= InterruptionType.softwareInterrupt ? length : 0,
  }
}
export const infoOfEvent = ({ kind, vector, hasErrorCode }: DeliveredEvent): number =>
  interruptionInfo(kind, vector, hasErrorCode)

/** Exceptions that push an error code. (SDM Vol. 3A, "Exception and Interrupt Vectors") */
const WITH_ERROR_CODE = (1 << 8) | (1 << 10) | (1 << 11) | (1 << 12) | (1 << 13) | (1 << 14) | (1 << 17) | (1 << 21)
export const exceptionHasErrorCode = (vector: number): boolean =>
  vector < 32 && ((WITH_ERROR_CODE >>> vector) & 1) === 1

/** Guest interruptibility-state bits. (SDM Vol. 3C, "Guest Non-Register State") */
export const Interruptibility = {
  blockingBySti: 1 << 0,
  blockingByMovSs: 1 << 1,
  blockingBySmi: 1 << 2,
  blockingByNmi: 1 << 3,
  enclaveInterruption: 1 << 4,
} as const

export const ActivityStateCode = { active: 0, hlt: 1, shutdown: 2, waitForStartup: 3 } as const
