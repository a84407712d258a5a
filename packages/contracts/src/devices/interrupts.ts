/** Interrupts: lines and messages in, vectors and signals out. Knows neither devices nor CPU modes. */

import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** One input of an interrupt controller, owned by one device. Levels are logical: raised = asserted, whatever the polarity. */
export interface InterruptLine {
  /** Assert. Nothing happens if it is asserted already. */
  raise(): void
  lower(): void
  /** An edge: raise and lower. */
  pulse(): void
}

/** Sends message-signalled interrupts: a memory write that the controller understands (MSI, MSI-X). */
export interface MessageInterrupts {
  /** `address` as the guest programmed it (0xFEExxxxx), `data` 32 bits. An address that means nothing is ignored and counted. */
  send(address: number, data: number): void
}
export const MessageInterrupts = token<MessageInterrupts>('MessageInterrupts')

/** Whom the controller wakes. Implemented by the kernel's run loop. */
export interface InterruptSink {
  /** Something became pending for a vCPU: end its sleep, or make its `run` return soon. Any context; must not throw. */
  wake(vcpu: number): void
}

/**
 * One per VM, with a view per vCPU. The CPU mode asks `hasPending` before each VM entry (and when an interrupt window opens), and
 * `acknowledge` when it really delivers. Inputs come from lines and messages; it knows no device.
 */
export interface InterruptController extends Saveable {
  /** Called once by the kernel before the VM runs. */
  attach(sink: InterruptSink): void

  /** A line by global system interrupt number. Two callers of one number share it (wired-or). Undefined: no such input. */
  line(gsi: number): InterruptLine | undefined
  /** How many lines there are. */
  readonly lines: number
  readonly messages: MessageInterrupts

  /** @hot Whether a maskable interrupt waits whose priority exceeds the vCPU's task priority. IF is the CPU mode's affair. */
  hasPending(vcpu: number): boolean
  /** Take the highest pending vector (0 to 255): it is in service from now on. -1 if none is left (spurious). */
  acknowledge(vcpu: number): number

  /** Reset one vCPU's part (INIT), or all of it. */
  reset(vcpu?: number): void
}
export const InterruptController = token<InterruptController>('InterruptController')
