/**
 * What the processor asks whoever runs deprivileged code on it: VMX non-root operation, paravirtual guests, trap and emulate. Types and constants
 * only; imports nothing. The implementer holds the core itself. Without hooks the processor runs as it does on its own.
 */

/** What a system routine answers: on with the next instruction, left (the exit slot says why), or go on at the RIP it set. */
export const NEXT = 0
export const LEFT = 1
export const JUMPED = 2
export type Outcome = 0 | 1 | 2

/** The hook does not take the instruction: it runs as usual. */
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
export const WALK_FAULT = { ...SECOND_STAGE, guest: 3 } as const
export type WalkFaultAnswer = (typeof WALK_FAULT)[keyof typeof WALK_FAULT]

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

export interface SwitchOptions {
  /** EXT bit of error codes. */
  readonly ext?: number
  /** The event that came through a task gate. */
  readonly event?: DeliveredEvent
  /** EIP to save; RIP slot otherwise. */
  readonly returnTo?: number
  /** The hypervisor does it, after the exit. */
  readonly emulated?: boolean
}

/** What a policy is asked about: a row of rows/, as far as it matters to it. */
export interface HookRow {
  readonly id: number
  readonly mnemonic: string
  readonly attributes: { readonly sensitive?: true | undefined; readonly cpl?: 0 | undefined; readonly flow?: string | undefined }
}

export interface Hooks {
  /**
   * Whether an instruction runs as it is, or `trapped` is asked each time before it runs: SYSCALL, INT n, sensitive and privileged instructions.
   * Asked once for each row and mode key (state/mode.ts) while code is decoded; `processor.blocks.reset()` asks anew. What runs costs nothing.
   */
  policy?(row: HookRow, mode: number): 'run' | 'trap'
  /**
   * Before an instruction that the policy traps, ahead of its checks of privilege; RIP is in its slot. Operands: `runningInstruction`. NEXT: it is
   * emulated, on with the one after it; JUMPED: on at the RIP that was set; LEFT: the exit slot is set; PROCEED: it runs as usual.
   * May throw a GuestFault.
   */
  trapped?(row: number): Outcome | typeof PROCEED
  /** Whether a control leaves instructions undefined (rows' `enabledBy`). Asked while decoding: code must be dropped when it changes. */
  isUndefined?(control: string): boolean
  /** Before an instruction whose row has an exit. `exit` is `exitOf(row)`; arguments lie in the `args` slots. */
  intercept(exit: number): Outcome | typeof PROCEED
  /**
   * Before an exception is delivered: true when the hook takes it (the exit slot is then set). CR2 and DR6 are not changed yet. `kind` and `length`
   * are given for those that an instruction asks for (INT1, INT3, INTO).
   */
  exception(vector: number, errorCode: number, kind?: EventKind, length?: number): boolean
  /** The second stage does not allow an access. `qualification`: SDM Vol. 3C, "Exit Qualification for EPT Violations". */
  secondStageViolation(physical: number, qualification: number): SecondStageAnswer
  /** An entry of the second stage is malformed. */
  secondStageMisconfiguration(physical: number): SecondStageAnswer
  /** Before a dirty flag of the second stage is set (page-modification log): false when it left instead. */
  pageModified?(physical: number): boolean
  /**
   * Page fault in a walk under a hardware root, or with `paging.hooksFaults` set, in the midst of any access, implicit ones too; its code in `paging.errorCode`; `access` is a sum of ACCESS. For `device` the answer's physical
   * page goes into `paging.frame`.
   */
  walkFault?(low: number, high: number, access: number): WalkFaultAnswer
  /** With a hardware root: words at a guest-physical address, all ones where there is no memory. */
  readTable?(physical: number, into: Int32Array): void
  /** CR0, CR3, CR4 or EFER were written (they may hold what they held). The TLB is flushed afterwards as the write asks for. */
  pagingChanged?(): void
  /** Task switches exit without condition. Other than LEFT: the hypervisor has done it (`switchTask` with `emulated`). */
  taskSwitch(selector: number, source: TaskSwitchSource, options: SwitchOptions): Outcome
  tripleFault(): void
}
