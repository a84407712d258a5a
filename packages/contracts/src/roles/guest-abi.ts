/**
 * What a guest finds of its hypervisor: hypercalls, clocks, start of day. What the kernel needs of one on any architecture; the CPU mode's half is
 * `X86GuestAbi` in x86/guest-abi.ts.
 */

import type { Clock } from '../devices/clock.ts'
import type { DmaMemory } from '../memory/dma-memory.ts'
import type { InterruptController } from '../devices/interrupts.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'
import type { ParavirtualMachine } from '../paravirtual/start-of-day.ts'
import type { PowerControl } from '../devices/power.ts'
import type { PagingStrategy } from './paging.ts'

/** What the ABI is created with. One VM's. */
export interface GuestAbiPorts {
  readonly guestMemory: DmaMemory
  readonly clock: Clock
  readonly interrupts: InterruptController
  readonly vcpuCount: number
  readonly paging: PagingStrategy
  readonly power: PowerControl
  /** What an I/O model of the stack offers. Throws if none does. */
  capability<T>(of: Token<T>): T
}

/** One per VM. */
export interface GuestAbi extends Saveable {
  /** After all roles exist, before anything runs. */
  attach(ports: GuestAbiPorts): void
  /** How a paravirtual guest is started. Absent: it is none. */
  readonly paravirtual?: ParavirtualMachine

  /** Before a vCPU goes back to the guest after a pause or a halt: steal time, clock versions. Optional and cheap. */
  onEntry?(vcpu: number): void
  /** Machine reset: shared structures are no longer where the guest put them. */
  reset(): void
}
export const GuestAbi = token<GuestAbi>('GuestAbi')
