/**
 * Hooks by which the processor asks the owner of deprivileged code: VMX non-root operation, paravirtual guests, trap and emulate. Types and constants
 * only; imports nothing. The implementer has the core itself. Without hooks the processor runs on its own.
 */

/** Result of a system routine: continue with the next instruction, left (the exit slot says why), or continue at the RIP that it set. */
export const NEXT = 0
export const LEFT = 1
export const JUMPED = 2
export type Outcome = 0 | 1 | 2

/** The hook does not handle the instruction, which runs as usual. */
export const PROCEED = -1

/**
 * Not the vector of an exception. A bus access that cannot be completed now throws a GuestFault with it: the hook `exception` answers that it exits,
 * and the processor stops before the instruction, which has no effect.
 */
export const STALLED = 0xff

/** Answers of the second stage's owner to a violation. */
export const SECOND_STAGE = {
  /** The tables were changed: walk again. */
  retry: 0,
  /** There is no memory: the access goes to a device. */
  device: 1,
  /** The exit slot is set: the instruction is abandoned. */
  left: 2,
} as const
export type SecondStageAnswer = (typeof SECOND_STAGE)[keyof typeof SECOND_STAGE]

/**
 * Answers of a hardware root's owner to a page fault: as above, that the fault is the guest's (`errorCode` is set), or, of a fetch alone, that code is
 * fetched from host memory which no table maps.
 */
export const WALK_FAULT = { ...SECOND_STAGE, guest: 3, code: 4 } as const
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

/** What a policy may use of a row of rows/. */
export interface HookRow {
  readonly id: number
  readonly mnemonic: string
  readonly attributes: { readonly sensitive?: true | undefined; readonly cpl?: 0 | undefined; readonly flow?: string | undefined }
}

export interface Hooks {
  /**
   * Whether an instruction runs unchanged, or `trapped` is called each time before it runs: SYSCALL, INT n, sensitive and privileged instructions.
   * Called once for each row and mode key (state/mode.ts) while code is decoded, and again after `processor.blocks.reset()`. Instructions that run
   * cost nothing.
   */
  policy?(row: HookRow, mode: number): 'run' | 'trap'
  /**
   * Called before an instruction that the policy traps, and before its privilege checks; RIP is in its slot. Operands: `runningInstruction`. NEXT: it
   * has been emulated, continue after it; JUMPED: continue at the RIP that was set; LEFT: the exit slot is set; PROCEED: it runs as usual. May throw
   * a GuestFault.
   */
  trapped?(row: number): Outcome | typeof PROCEED
  /** Whether a control leaves instructions undefined (rows' `enabledBy`). Called while decoding: code must be dropped when it changes. */
  isUndefined?(control: string): boolean
  /** Called before an instruction whose row has an exit. `exit` is `exitOf(row)`; arguments are in the `args` slots. */
  intercept(exit: number): Outcome | typeof PROCEED
  /**
   * Called before an exception is delivered: true if the hook handles it (the exit slot is then set). CR2 and DR6 have not been changed yet. `kind`
   * and `length` are given for software exceptions (INT1, INT3, INTO).
   */
  exception(vector: number, errorCode: number, kind?: EventKind, length?: number): boolean
  /** The second stage does not allow an access. `qualification`: SDM Vol. 3C, "Exit Qualification for EPT Violations". */
  secondStageViolation(physical: number, qualification: number): SecondStageAnswer
  /** An entry of the second stage is malformed. */
  secondStageMisconfiguration(physical: number): SecondStageAnswer
  /** Called before a dirty flag of the second stage is set (page-modification log): false if it left instead. */
  pageModified?(physical: number): boolean
  /**
   * A page fault in a walk under a hardware root, or with `paging.hooksFaults` set, during any access, including implicit ones. Its code is in
   * `paging.errorCode`; `access` is a sum of ACCESS. For `device` the hook stores the physical page in `paging.frame`, for `code` the
   * host's.
   */
  walkFault?(low: number, high: number, access: number): WalkFaultAnswer
  /** With a hardware root: reads words at a guest-physical address, all ones where there is no memory. */
  readTable?(physical: number, into: Int32Array): void
  /** CR0, CR3, CR4 or EFER were written, perhaps unchanged. The TLB is flushed afterwards as the write requires. */
  pagingChanged?(): void
  /** Task switches exit unconditionally. Results other than LEFT: the hypervisor has done it (`switchTask` with `emulated`). */
  taskSwitch(selector: number, source: TaskSwitchSource, options: SwitchOptions): Outcome
  tripleFault(): void
}
