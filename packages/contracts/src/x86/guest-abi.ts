/** The guest ABI of an x86 guest: CPUID leaves, MSRs and hypercalls. Called by the CPU mode. */

import type { GuestAbi, GuestAbiPorts } from '../roles/guest-abi.ts'
import type { PvVcpu } from '../paravirtual/pv-entry.ts'
import type { X86InterruptController } from './interrupts.ts'
import type { X86PagingStrategy } from './paging.ts'

/** Four 32-bit registers, unsigned. Filled in place; the caller owns the object. */
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
  /** Of a CPU mode with `pvEntry`. */
  readonly pv?: PvVcpu
}

/**
 * `done`: result registers are set. `again`: the arguments are set for the rest of the call, which the guest makes again once its own interrupts were
 * delivered. `yield`: as `done`, and other vCPUs run first. `halt`: as `done`, and the vCPU sleeps as after HLT. `unknown`: #UD. `exit`: for the VM
 * (power off, schedule); becomes a `hypercall` exit.
 */
export type HypercallResult = 'done' | 'again' | 'yield' | 'halt' | 'unknown' | 'exit'

export interface X86GuestAbiPorts extends GuestAbiPorts {
  readonly interrupts: X86InterruptController
  readonly paging: X86PagingStrategy
}

export interface X86GuestAbi extends GuestAbi {
  attach(ports: X86GuestAbiPorts): void

  /**
   * Modifies a CPUID leaf: `result` has the processor model's values and may be changed in place. Called for unknown leaves too (with zeros), so that
   * leaves from 0x40000000 can be added.
   */
  cpuid(vcpu: number, leaf: number, subleaf: number, result: CpuidResult): void
  /** Value, or undefined if the MSR is not one of the ABI's. */
  readMsr(vcpu: number, index: number): bigint | undefined
  /** undefined: not the ABI's; false: #GP; true: done. */
  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined
  /** VMCALL, VMMCALL, or the PV entry. */
  hypercall(vcpu: GuestAbiVcpu): HypercallResult
  /** A vCPU was created, in order of index. */
  addVcpu?(vcpu: GuestAbiVcpu): void
}
