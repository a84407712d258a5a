/** A deprivileged vCPU as its guest ABI sees it: handlers instead of an IDT, a kernel stack instead of a TSS, two roots instead of two privilege levels. */

import type { Hpa } from '../base/address.ts'

/** Where the guest kernel wants to be entered for what is no exception. */
export const PV_CALLBACKS = ['event', 'failsafe', 'syscall', 'syscall32', 'sysenter', 'nmi'] as const
export type PvCallback = (typeof PV_CALLBACKS)[number]

/** Segment bases that only the hypervisor can write. `gsUser`, `gsKernel`: of the mode that SWAPGS selects. */
export type PvSegmentBase = 'fs' | 'gsUser' | 'gsKernel'

/** One handler: the guest's answer to an exception vector. Address 0: there is none. */
export interface PvTrap {
  readonly vector: number
  readonly address: bigint
  /** Least privileged mode that may ask for it by INT n: 0 to 3; the guest kernel counts as 1. */
  readonly privilege: number
  /** Entering it masks event upcalls. */
  readonly masksEvents: boolean
}

/** Registers of a vCPU that is brought up by another one. */
export interface PvContext {
  /** Sixteen, in the order of the encoding. */
  readonly registers: readonly bigint[]
  readonly rip: bigint
  readonly rflags: bigint
  readonly cs: number
  readonly ss: number
  readonly kernelStack: { readonly ss: number; readonly sp: bigint }
  readonly fsBase: bigint
  readonly gsKernelBase: bigint
  readonly gsUserBase: bigint
  readonly inKernel: boolean
}

/**
 * Given by a CPU mode that has `pvEntry`, in `GuestAbiVcpu.pv`. Both modes of the guest run at CPL 3; which of them runs is the mode's to know. Every return
 * to the guest delivers what is pending: exception first, then event upcall.
 */
export interface PvVcpu {
  /** The guest kernel runs, as opposed to its user programs. */
  readonly inKernel: boolean

  setTrap(trap: PvTrap): void
  clearTraps(): void
  setCallback(kind: PvCallback, address: bigint, masksEvents: boolean): void
  setKernelStack(ss: number, sp: bigint): void
  /** End of a bounce: registers from the frame at RSP. */
  returnFromTrap(): void

  /** False: not canonical. */
  setSegmentBase(which: PvSegmentBase, value: bigint): boolean
  /** Load GS for user mode by selector. False: the descriptor does not allow it; GS is then null. */
  loadUserGs(selector: number): boolean
  /** Descriptors changed: what the mode knows of them no longer holds. `localEntries`: size of the local table, where it was replaced. */
  descriptorsChanged(localEntries?: number): void
  /** The next use of the FPU raises #NM. */
  setTaskSwitched(on: boolean): void
  /** False: no such register, or a value that it does not take. */
  setDebugRegister(number: number, value: bigint): boolean
  debugRegister(number: number): bigint | undefined
  setIoPrivilege(level: number): void
  /** Bits of ports that user mode may use; in guest memory, read when it matters. */
  setIoBitmap(address: bigint, ports: number): void

  /** Where the guest's vcpu_info is: the mode keeps CR2 and the upcall mask in it. */
  setInfo(at: Hpa): void
  /** Pending upcalls are delivered at the next return; until then the vCPU sleeps. `untilWoken`: whatever the upcall mask says. */
  sleep(untilWoken: boolean): void
  /** Give the rest of the slice away. */
  yield(): void
  /** Run the hypercall again, with registers as they are now. */
  repeat(): void
  /** The guest broke a rule that ends it. One sentence, with the rule. */
  crash(reason: string): void
  sendNmi(): void

  /** Of a vCPU that is down. */
  initialise(context: PvContext): void
  readonly isUp: boolean
  setUp(up: boolean): void

  /** Guest memory at linear addresses, as guest code could reach it. False: some of it cannot be; bytes before may have been copied. */
  copyIn(address: bigint, into: Uint8Array): boolean
  copyOut(address: bigint, from: Uint8Array): boolean
}
