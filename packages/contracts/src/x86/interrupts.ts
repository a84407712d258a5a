/** The x86 part of an interrupt controller: local APIC state, signals between processors, EOI without an exit. */

import { token } from '../base/token.ts'
import type { InterruptController } from '../devices/interrupts.ts'

/** Signals other than vectored interrupts, as bits of `InterruptController.signals`. */
export const VcpuSignal = { nmi: 1, smi: 2, init: 4, startup: 8 } as const

/**
 * Lets a guest end an interrupt without an exit, by a flag in memory it shares with its hypervisor (KVM's PV EOI). Implemented by a guest ABI, called
 * by the controller.
 */
export interface EoiAssist {
  /** An interrupt went into service and no other is pending: offers the guest to end it without an exit. True: the flag is set. */
  offer(vcpu: number): boolean
  /** Whether the guest has taken the outstanding offer: the controller then ends the interrupt. */
  taken(vcpu: number): boolean
  /** Another interrupt is pending, so a real EOI is needed: clears the flag. Call `taken` first. */
  withdraw(vcpu: number): void
}

/**
 * Interrupts of the hypervisor's own, by vector: a capability that an I/O model with local APICs offers. Unlike a message, one that comes before the
 * guest has enabled its APIC is kept until then.
 */
export interface VcpuVectors {
  raise(vcpu: number, vector: number): void
  /** As an external interrupt past the vCPU's local APIC: no priority, no end of interrupt. One that was not taken yet is replaced. */
  raiseExternal(vcpu: number, vector: number): void
}
export const VcpuVectors = token<VcpuVectors>('VcpuVectors')

export interface X86InterruptController extends InterruptController {
  /** Called by a guest ABI in its `attach`. Absent: not supported by the controller. */
  setEoiAssist?(assist: EoiAssist): void

  /** @hot Pending `VcpuSignal` bits. */
  signals(vcpu: number): number
  /** Takes one signal. Returns the SIPI vector for `startup`, else 0. If a second NMI is pending, its bit stays set. */
  takeSignal(vcpu: number, signal: number): number

  /** CR8: bits 7:4 of the task-priority register. */
  readTaskPriority(vcpu: number): number
  writeTaskPriority(vcpu: number, priority: number): void

  /** MSRs of the controller (IA32_APIC_BASE, x2APIC, IA32_TSC_DEADLINE): value, or undefined if it is not one of these. */
  readMsr(vcpu: number, index: number): bigint | undefined
  /** undefined: not the controller's; false: #GP; true: done. */
  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined
}
