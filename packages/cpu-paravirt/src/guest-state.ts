/** What the paravirtual interface keeps for a vCPU beside the processor's registers. No behaviour. */

import type { PvCallback } from '@nonroot/contracts'
import { highOf, lowOf } from './facts.ts'

/** An entry point of the guest kernel's. Its address also by halves, which entering it takes. */
export interface Handler {
  address: bigint
  low: number
  high: number
  privilege: number
  masksEvents: boolean
}
const none = (): Handler => ({ address: 0n, low: 0, high: 0, privilege: 0, masksEvents: false })

export function setHandler(handler: Handler, address: bigint, masksEvents: boolean, privilege = 0): void {
  Object.assign(handler, { address, low: lowOf(address), high: highOf(address), masksEvents, privilege })
}

export class GuestState {
  inKernel = true
  /** Machine addresses of the two roots; 0: there is none. */
  kernelRoot = 0
  userRoot = 0
  kernelSs = 0
  kernelSpLow = 0
  kernelSpHigh = 0
  readonly traps: Handler[] = Array.from({ length: 256 }, none)
  readonly callbacks: Record<PvCallback, Handler> = {
    event: none(),
    failsafe: none(),
    syscall: none(),
    syscall32: none(),
    sysenter: none(),
    nmi: none(),
  }
  /** Virtual IOPL: the guest kernel counts as 1, its user programs as 3. */
  ioPrivilege = 0
  ioBitmap = 0n
  ioPorts = 0
  /** Host address of vcpu_info; 0: not set yet. */
  info = 0
  nmiPending = false
  nmiMasked = false

  reset(): void {
    this.inKernel = true
    this.kernelRoot = this.userRoot = 0
    this.kernelSs = 0
    this.kernelSpLow = this.kernelSpHigh = 0
    for (const handler of [...this.traps, ...Object.values(this.callbacks)]) Object.assign(handler, none())
    this.ioPrivilege = 0
    this.ioBitmap = 0n
    this.ioPorts = 0
    this.nmiPending = this.nmiMasked = false
  }
}
