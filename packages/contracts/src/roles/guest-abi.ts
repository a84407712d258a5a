/**
 * Guest ABIs: what a guest finds of its hypervisor, such as hypercalls and clocks. This is what the kernel needs on any architecture; `X86GuestAbi`
 * in x86/guest-abi.ts adds what the CPU mode needs.
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

/** The parts of its VM that an ABI uses. */
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

  /** Before a vCPU enters the guest after a pause or a halt: steal time, clock versions. Must be cheap. */
  onEntry?(vcpu: number): void
  /** The vCPU was ready for so long while others ran: steal time. `onEntry` follows. */
  accountSteal?(vcpu: number, ns: number): void
  /** The VM has ended: no vCPU runs again, and statistics are read next. For checks of what is left over. */
  ended?(): void
  /** Machine reset: structures that the guest had registered are invalid. */
  reset(): void
}
export const GuestAbi = token<GuestAbi>('GuestAbi')
