/** Exit qualifications, packed as in the SDM and as typed objects, and the union of all exits. (SDM Vol. 3C, "Basic VM-Exit Information") */

import { exitReasonName, type ExitReasonName } from '../tables/exit-reasons.ts'
import { interruptionType, interruptionVector, type InterruptionType } from '../tables/interruption-info.ts'
import type { Vmcs } from '../vmcs/vmcs.ts'

export interface CrAccess {
  readonly register: 0 | 3 | 4 | 8
  readonly access: 'movToCr' | 'movFromCr' | 'clts' | 'lmsw'
  /** General register of a MOV. */
  readonly general: number
  readonly lmswMemory: boolean
  readonly lmswSource: number
}
const CR_ACCESS = ['movToCr', 'movFromCr', 'clts', 'lmsw'] as const

export const crAccessQualification = (
  register: number,
  access: CrAccess['access'],
  general = 0,
  lmswSource = 0,
): number => (register | (CR_ACCESS.indexOf(access) << 4) | (general << 8) | (lmswSource << 16)) >>> 0
export const decodeCrAccess = (q: number): CrAccess => ({
  register: (q & 15) as CrAccess['register'],
  access: CR_ACCESS[(q >>> 4) & 3]!,
  lmswMemory: (q & 0x40) !== 0,
  general: (q >>> 8) & 15,
  lmswSource: q >>> 16,
})

export interface IoInstruction {
  readonly size: 1 | 2 | 4
  readonly direction: 'in' | 'out'
  readonly string: boolean
  readonly rep: boolean
  /** The port is an immediate operand, not DX. */
  readonly immediate: boolean
  readonly port: number
}
export const ioQualification = (io: IoInstruction): number =>
  ((io.size - 1) |
    (io.direction === 'in' ? 8 : 0) |
    (io.string ? 16 : 0) |
    (io.rep ? 32 : 0) |
    (io.immediate ? 64 : 0) |
    (io.port << 16)) >>>
  0
export const decodeIo = (q: number): IoInstruction => ({
  size: ((q & 7) + 1) as IoInstruction['size'],
  direction: q & 8 ? 'in' : 'out',
  string: (q & 16) !== 0,
  rep: (q & 32) !== 0,
  immediate: (q & 64) !== 0,
  port: q >>> 16,
})

export interface MovDr {
  readonly register: number
  readonly direction: 'toDr' | 'fromDr'
  readonly general: number
}
export const decodeMovDr = (q: number): MovDr => ({
  register: q & 7,
  direction: q & 16 ? 'fromDr' : 'toDr',
  general: (q >>> 8) & 15,
})

export const TASK_SWITCH_SOURCES = ['call', 'iret', 'jump', 'gate'] as const
export interface TaskSwitch {
  readonly selector: number
  readonly source: (typeof TASK_SWITCH_SOURCES)[number]
}
export const decodeTaskSwitch = (q: number): TaskSwitch => ({
  selector: q & 0xffff,
  source: TASK_SWITCH_SOURCES[q >>> 30]!,
})

/** Bits of the EPT-violation qualification. 2:0 are `SecondStageAccess` of the contracts. */
export const EptViolationBit = {
  read: 1 << 0,
  write: 1 << 1,
  fetch: 1 << 2,
  readable: 1 << 3,
  writable: 1 << 4,
  executable: 1 << 5,
  linearAddressValid: 1 << 7,
  /** The access was to the translated address, not to a paging structure. */
  finalAccess: 1 << 8,
  nmiUnblocking: 1 << 12,
} as const
export interface EptViolation {
  readonly access: number
  readonly rights: number
  readonly linearAddressValid: boolean
  readonly finalAccess: boolean
}
export const decodeEptViolation = (q: number): EptViolation => ({
  access: q & 7,
  rights: (q >>> 3) & 7,
  linearAddressValid: (q & EptViolationBit.linearAddressValid) !== 0,
  finalAccess: (q & EptViolationBit.finalAccess) !== 0,
})

/** Qualification of an entry failure by guest state. */
export const ENTRY_FAILURE = { other: 0, pdpteLoading: 2, nmiInjection: 3, vmcsLinkPointer: 4 } as const

/** Data of each exit reason. Reasons that are not listed have none. */
interface ExitPayloads {
  exceptionOrNmi: {
    readonly type: InterruptionType
    readonly vector: number
    readonly errorCode: number
    readonly address: bigint
  }
  externalInterrupt: { readonly vector: number }
  taskSwitch: TaskSwitch
  crAccess: CrAccess
  movDr: MovDr
  ioInstruction: IoInstruction
  invlpg: { readonly address: bigint }
  eptViolation: EptViolation & { readonly guestPhysical: number; readonly linear: bigint }
  eptMisconfiguration: { readonly guestPhysical: number }
  startup: { readonly vector: number }
  entryFailureGuestState: { readonly cause: number }
  entryFailureMsrLoading: { readonly entry: number }
}
type Payload<R extends ExitReasonName> = R extends keyof ExitPayloads ? ExitPayloads[R] : unknown

/** An exit, each reason with its own qualification. For traces, tests and nested hypervisors; handlers on the hot path read the bits. */
export type VmxExit = { [R in ExitReasonName]: { readonly reason: R } & Payload<R> }[ExitReasonName]
export type VmxExitOf<R extends ExitReasonName> = Extract<VmxExit, { reason: R }>

/** Decodes the exit-information fields. */
export function decodeExit(vmcs: Vmcs): VmxExit | undefined {
  const number = vmcs.read32('exitReason')
  const reason = exitReasonName(number)
  if (reason === undefined) return undefined
  const qualification = vmcs.read('exitQualification')
  const low = Number(qualification & 0xffff_ffffn)
  const info = vmcs.read32('exitInterruptionInfo')
  switch (reason) {
    case 'exceptionOrNmi':
      return {
        reason,
        type: interruptionType(info),
        vector: interruptionVector(info),
        errorCode: vmcs.read32('exitInterruptionErrorCode'),
        address: qualification,
      }
    case 'externalInterrupt':
      return { reason, vector: interruptionVector(info) }
    case 'taskSwitch':
      return { reason, ...decodeTaskSwitch(low) }
    case 'crAccess':
      return { reason, ...decodeCrAccess(low) }
    case 'movDr':
      return { reason, ...decodeMovDr(low) }
    case 'ioInstruction':
      return { reason, ...decodeIo(low) }
    case 'invlpg':
      return { reason, address: qualification }
    case 'eptViolation':
      return {
        reason,
        ...decodeEptViolation(low),
        guestPhysical: Number(vmcs.read('guestPhysicalAddress')),
        linear: vmcs.read('guestLinearAddress'),
      }
    case 'eptMisconfiguration':
      return { reason, guestPhysical: Number(vmcs.read('guestPhysicalAddress')) }
    case 'startup':
      return { reason, vector: low & 0xff }
    case 'entryFailureGuestState':
      return { reason, cause: low }
    case 'entryFailureMsrLoading':
      return { reason, entry: low }
    default:
      return { reason } as VmxExit
  }
}
