/** Interrupts: lines and messages in, vectors out. Independent of devices and CPU modes. */

import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** One input of an interrupt controller, owned by one device. Levels are logical: raised = asserted, whatever the polarity. */
export interface InterruptLine {
  /** Asserts the line. No effect if it is asserted already. */
  raise(): void
  lower(): void
  /** An edge: raises and lowers. */
  pulse(): void
  /**
   * Calls the listener whenever a level-triggered interrupt of the line has ended, before the controller looks at its level again: for a device whose level
   * is in memory, where nothing shows that it changed. Absent, or never called: the controller does not notice.
   */
  onEnd?(listener: () => void): void
}

/** Sends message-signalled interrupts: a memory write that the controller understands (MSI, MSI-X). */
export interface MessageInterrupts {
  /**
   * `address` as the guest programmed it (0xFEExxxxx), `data` 32 bits. An address without meaning is ignored and counted. `requester`: the PCI function
   * that sends it, for an IOMMU that remaps interrupts. `destination`: all 32 bits of it, as only an IOMMU knows them; otherwise the address has 8.
   */
  send(address: number, data: number, requester?: number, destination?: number): void
}
export const MessageInterrupts = token<MessageInterrupts>('MessageInterrupts')

/** Called by the controller to wake vCPUs. Implemented by the kernel's run loop. */
export interface InterruptSink {
  /** An interrupt became pending for a vCPU: ends its sleep, or makes its `run` return soon. Called from any context; must not throw. */
  wake(vcpu: number): void
}

/**
 * One per VM, with a view per vCPU. The CPU mode calls `hasPending` before each VM entry (and when an interrupt window opens), and `acknowledge` when
 * it delivers. Inputs are lines and messages.
 */
export interface InterruptController extends Saveable {
  /** Called once by the kernel before the VM runs. */
  attach(sink: InterruptSink): void

  /** A line by global system interrupt number. Two callers with the same number share it (wired-or). Undefined: no such input. */
  line(gsi: number): InterruptLine | undefined
  /** Number of lines. */
  readonly lines: number
  readonly messages: MessageInterrupts

  /** @hot Whether a maskable interrupt waits whose priority exceeds the vCPU's task priority. The CPU mode checks IF. */
  hasPending(vcpu: number): boolean
  /** Takes the highest pending vector (0 to 255), which is then in service. -1 if none is left (spurious). */
  acknowledge(vcpu: number): number

  /** Resets one vCPU's part (INIT), or all of it. */
  reset(vcpu?: number): void
}
export const InterruptController = token<InterruptController>('InterruptController')
