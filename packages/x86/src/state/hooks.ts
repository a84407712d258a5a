/**
 * The doors of VMX non-root operation: what the processor asks before it does what a control may forbid. Only the questions;
 * VMCS, controls and exit information are cpu-vmx's. Absent in root operation.
 */
import type { Core, Outcome } from './core.ts'
import type { SwitchOptions } from '../events/task-switch.ts'
import { rows, type Row } from '../rows/index.ts'
import type { RowExit } from '../rows/row.ts'

/** The instruction does not exit: it goes on as usual. */
export const PROCEED = -1

/**
 * No exception has this vector. A bus access that cannot be answered now throws a GuestFault with it: `exception` is asked, says that it exits, and
 * the processor stops before the instruction, of which nothing is done.
 */
export const STALLED = 0xff

/** What the second stage's owner answers to a violation. */
export const SECOND_STAGE = {
  /** The tables were changed: walk again. */
  retry: 0,
  /** There is no memory: the access goes to a device. */
  device: 1,
  /** The exit slot is set: nothing more of this instruction is done. */
  left: 2,
} as const
export type SecondStageAnswer = (typeof SECOND_STAGE)[keyof typeof SECOND_STAGE]

/** What the owner of a hardware root answers to a page fault under it: as above, or that the fault is the guest's (`errorCode` is set). */
export const HIDDEN_FAULT = { ...SECOND_STAGE, guest: 3 } as const
export type HiddenFaultAnswer = (typeof HIDDEN_FAULT)[keyof typeof HIDDEN_FAULT]

/** Interruption types. (SDM Vol. 3C, "Format of the VM-Entry Interruption-Information Field") */
export const EVENT = {
  external: 0,
  nmi: 2,
  exception: 3,
  software: 4,
  privilegedSoftware: 5,
  softwareException: 6,
} as const
export type EventKind = (typeof EVENT)[keyof typeof EVENT]

/** The event being delivered through the IDT: what the IDT-vectoring information field reports when its delivery exits. */
export interface DeliveredEvent {
  kind: EventKind
  vector: number
  errorCode: number
  hasErrorCode: boolean
  /** Length of the instruction, for the software kinds. */
  length: number
}

/** Causes of a task switch, numbered as in the exit qualification. (SDM Vol. 3C, "Exit Qualification for Task Switches") */
export const TASK_SWITCH = { call: 0, iret: 1, jump: 2, gate: 3 } as const
export type TaskSwitchSource = (typeof TASK_SWITCH)[keyof typeof TASK_SWITCH]

export interface NonRoot {
  /** Whether a control leaves instructions undefined (rows' `enabledBy`). Asked while decoding: code must be dropped when it changes. */
  isUndefined?(control: string): boolean
  /** Before an instruction whose row has an exit. `exit` is `exitOf(row)`; arguments lie in the `args` slots. */
  intercept(exit: number, core: Core): Outcome | typeof PROCEED
  /**
   * Before an exception is delivered: true when it exits (the exit slot is then set). CR2 and DR6 are not changed yet. `kind` and `length` are given
   * for those that an instruction asks for (INT1, INT3, INTO).
   */
  exception(core: Core, vector: number, errorCode: number, kind?: EventKind, length?: number): boolean
  eptViolation(core: Core, guestPhysical: number, qualification: number): SecondStageAnswer
  eptMisconfiguration(core: Core, guestPhysical: number): SecondStageAnswer
  /** Before an EPT dirty flag is set (page-modification log): false when it left instead. */
  pageModified?(core: Core, guestPhysical: number): boolean
  /**
   * Page fault under a hardware root, its code in `paging.errorCode`; `access` is a sum of ACCESS. For `device` the answer's physical
   * page goes into `paging.frame`.
   */
  pageFault?(core: Core, low: number, high: number, access: number): HiddenFaultAnswer
  /** With a hardware root: words at a guest-physical address, all ones where there is no memory. */
  readTable?(core: Core, physical: number, into: Int32Array): void
  /** CR0, CR3, CR4 or EFER were written (they may hold what they held). The TLB is flushed afterwards as the write asks for. */
  pagingChanged?(core: Core): void
  /** Task switches exit without condition. Other than LEFT: the hypervisor has done it (`switchTask` with `emulated`). */
  taskSwitch(core: Core, selector: number, source: TaskSwitchSource, options: SwitchOptions): Outcome
  tripleFault(core: Core): void
}

export interface ExitCause {
  readonly reason: string
  /** `always`, or the control that decides. */
  readonly when: string
  /** Bits of the exit qualification that the encoding decides. */
  readonly qualification: number
}

const causes: ExitCause[] = [{ reason: '', when: '', qualification: 0 }]
const numbers = new Map<string, number>()
const nameOf = ({ reason, when, qualification }: RowExit): string => `${reason}/${when}/${qualification ?? 0}`
for (const { attributes } of rows) {
  const cause = attributes.exit
  if (!cause || numbers.has(nameOf(cause))) continue
  numbers.set(nameOf(cause), causes.length)
  causes.push({ qualification: 0, ...cause })
}

/** Exits by number; 0 is none. */
export const EXIT_CAUSES: readonly ExitCause[] = causes

/** Number of the exit that a row can cause, 0 none. */
export function exitOf(row: Row): number {
  const cause = row.attributes.exit
  return cause ? numbers.get(nameOf(cause))! : 0
}
