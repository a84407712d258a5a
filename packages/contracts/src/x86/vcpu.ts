/** An x86 vCPU: its additions to the neutral `Vcpu`, and the x86 roles that it uses. */

import type { Vcpu, VcpuPorts } from '../roles/cpu-mode.ts'
import type { X86GuestAbi } from './guest-abi.ts'
import type { X86InterruptController } from './interrupts.ts'
import type { X86PagingStrategy } from './paging.ts'
import type { VcpuState } from './vcpu-state.ts'

export interface X86VcpuPorts extends VcpuPorts {
  readonly paging: X86PagingStrategy
  readonly abi: X86GuestAbi
  readonly interrupts: X86InterruptController
}

/** An event to deliver at the next entry. `errorCode` where the vector has one. */
export type VcpuEvent =
  | { readonly kind: 'interrupt'; readonly vector: number }
  | { readonly kind: 'nmi' }
  | { readonly kind: 'exception'; readonly vector: number; readonly errorCode?: number; readonly cr2?: bigint }

/** Before each entry it also takes signals from the controller; `inject` is for debuggers, guest ABIs and restore. */
export interface X86Vcpu extends Vcpu<VcpuState> {
  /** Queues an event for the next entry. One of each kind at a time; a second replaces the first. Of NMIs, one runs and one more waits. */
  inject(event: VcpuEvent): void
}
