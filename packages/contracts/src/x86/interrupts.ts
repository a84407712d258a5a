/** What an x86 interrupt controller has beside lines and vectors: local APIC state, signals between processors, EOI without an exit. */

import type { InterruptController } from '../devices/interrupts.ts'

/** Signals other than vectored interrupts, as bits of `InterruptController.signals`. */
export const VcpuSignal = { nmi: 1, smi: 2, init: 4, startup: 8 } as const

/**
 * Lets a guest end an interrupt without an exit, by a flag in memory it shares with its hypervisor (KVM's PV EOI). Given by a guest ABI, asked
 * by the controller.
 */
export interface EoiAssist {
  /** An interrupt went into service and nothing else waits: may the guest end it by itself? True: the flag is set. */
  offer(vcpu: number): boolean
  /** Whether the guest took the outstanding offer since: the controller then ends the interrupt. */
  taken(vcpu: number): boolean
  /** Something else waits now, so a real EOI is needed: the flag is cleared. Call `taken` first. */
  withdraw(vcpu: number): void
}

export interface X86InterruptController extends InterruptController {
  /** Called by a guest ABI in its `attach`, if it has such a thing. Absent: the controller cannot. */
  setEoiAssist?(assist: EoiAssist): void

  /** @hot Pending `VcpuSignal` bits. */
  signals(vcpu: number): number
  /** Take one signal off. For `startup` returns the SIPI vector, else 0. Of NMIs there may be a second one behind it: its bit stays. */
  takeSignal(vcpu: number, signal: number): number

  /** CR8: bits 7:4 of the task-priority register. */
  readTaskPriority(vcpu: number): number
  writeTaskPriority(vcpu: number, priority: number): void

  /** MSRs of the controller (IA32_APIC_BASE, x2APIC, IA32_TSC_DEADLINE): value, or undefined when not the controller's. */
  readMsr(vcpu: number, index: number): bigint | undefined
  /** undefined: not the controller's; false: #GP; true: done. */
  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined
}
