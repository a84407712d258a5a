/** What a guest finds of its hypervisor: CPUID leaves, MSRs, hypercalls, clocks, start of day. Knows no CPU mode. */

import type { Clock } from '../devices/clock.ts'
import type { GuestMemory } from '../memory/guest-memory.ts'
import type { InterruptController } from '../devices/interrupts.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** Four 32-bit registers, unsigned. The caller's object, filled in place. */
export interface CpuidResult {
  eax: number
  ebx: number
  ecx: number
  edx: number
}

/** One vCPU as the ABI sees it. */
export interface GuestAbiVcpu {
  readonly index: number
  /** The general registers of a hypercall, read and written. */
  readonly registers: {
    rax: bigint
    rbx: bigint
    rcx: bigint
    rdx: bigint
    rsi: bigint
    rdi: bigint
    r8: bigint
    r9: bigint
    r10: bigint
  }
  readonly cpl: number
  readonly longMode: boolean
  /** Guest-virtual to guest-physical by the guest's tables, for hypercalls that pass pointers. */
  translate(address: bigint): number | undefined
}

/** `done`: result registers are set. `unknown`: #UD. `exit`: for the VM (power off, schedule); becomes a `hypercall` exit. */
export type HypercallResult = 'done' | 'unknown' | 'exit'

/** What the ABI is created with. One VM's. */
export interface GuestAbiPorts {
  readonly guestMemory: GuestMemory
  readonly clock: Clock
  readonly interrupts: InterruptController
  readonly vcpuCount: number
}

/** One per VM. Called by the CPU mode (CPUID, MSR, hypercall) and by the kernel (attach, entry hooks, reset). */
export interface GuestAbi extends Saveable {
  /** After all roles exist, before anything runs. */
  attach(ports: GuestAbiPorts): void

  /**
   * Last word on a CPUID leaf: `result` holds what the processor model says and may be changed in place. Unknown leaves come too (as zeros),
   * so 0x40000000 and up are added here.
   */
  cpuid(vcpu: number, leaf: number, subleaf: number, result: CpuidResult): void
  /** Value, or undefined when the MSR is not the ABI's. */
  readMsr(vcpu: number, index: number): bigint | undefined
  /** undefined: not the ABI's; false: #GP; true: done. */
  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined
  /** VMCALL, VMMCALL, or the PV entry. */
  hypercall(vcpu: GuestAbiVcpu): HypercallResult

  /** Before a vCPU goes back to the guest after a pause or a halt: steal time, clock versions. Optional and cheap. */
  onEntry?(vcpu: number): void
  /** Machine reset: shared structures are no longer where the guest put them. */
  reset(): void
}
export const GuestAbi = token<GuestAbi>('GuestAbi')
