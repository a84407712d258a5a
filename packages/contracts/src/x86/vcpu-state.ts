/** The complete architectural state of an x86-64 vCPU, for snapshots, boot protocols and debuggers. */

import type { VcpuStatus } from '../roles/cpu-mode.ts'

/** In the order of the encoding. */
// prettier-ignore
export const GENERAL_REGISTERS = [
  'rax', 'rcx', 'rdx', 'rbx', 'rsp', 'rbp', 'rsi', 'rdi',
  'r8', 'r9', 'r10', 'r11', 'r12', 'r13', 'r14', 'r15',
] as const
export type GeneralRegister = (typeof GENERAL_REGISTERS)[number]

/** A segment register with its hidden part. */
export interface SegmentState {
  readonly selector: number
  readonly base: bigint
  /** In bytes, with granularity applied. */
  readonly limit: number
  /**
   * As VMX keeps them: type 3:0, S 4, DPL 6:5, P 7, AVL 12, L 13, D/B 14, G 15, unusable 16.
   * (SDM Vol. 3C, "Guest Register State")
   */
  readonly attributes: number
}

export interface DescriptorTable {
  readonly base: bigint
  readonly limit: number
}

/** 64-bit values are unsigned bigints. For cold paths: reading the state costs microseconds. */
export interface VcpuState extends VcpuStatus, Readonly<Record<GeneralRegister, bigint>> {
  readonly rflags: bigint
  readonly cs: SegmentState
  readonly ss: SegmentState
  readonly ds: SegmentState
  readonly es: SegmentState
  readonly fs: SegmentState
  readonly gs: SegmentState
  readonly ldtr: SegmentState
  readonly tr: SegmentState
  readonly gdtr: DescriptorTable
  readonly idtr: DescriptorTable
  /** As the guest sees them, not the CPU mode's values. */
  readonly cr0: bigint
  readonly cr2: bigint
  readonly cr3: bigint
  readonly cr4: bigint
  readonly efer: bigint
  readonly xcr0: bigint
  readonly dr: readonly [dr0: bigint, dr1: bigint, dr2: bigint, dr3: bigint, dr6: bigint, dr7: bigint]
  /** MSRs other than those above, by index. Writing some leaves the others unchanged. */
  readonly msrs: ReadonlyMap<number, bigint>
  /** x87, SSE and AVX in the standard (non-compacted) form of XSAVE. */
  readonly xsave: Uint8Array
  /** After STI or MOV SS, which block interrupts for one instruction. */
  readonly interruptShadow: 'none' | 'sti' | 'movSs'
  readonly nmiBlocked: boolean
}

/** Part of the state; absent members are unchanged. */
export type VcpuStatePatch = Partial<VcpuState>
