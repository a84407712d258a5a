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

/** Signals other than vectored interrupts, as bits of `InterruptController.signals`. */
export const VcpuSignal = { nmi: 1, smi: 2, init: 4, startup: 8 } as const

/**
 * Lets a guest end an interrupt without an exit, by a flag in memory it shares with its hypervisor (KVM's PV EOI). Given by a guest ABI, asked
 * by the controller.
 */
export interface EoiAssist {
  /** An interrupt went into service and nothing else waits: may the guest end it by itself? True: the flag is set. */
  offer(vcpu: number): boolean
  /** Whether the guest took the outstanding offer since: the controller then ends the interrupt. */
  taken(vcpu: number): boolean
  /** Something else waits now, so a real EOI is needed: the flag is cleared. Call `taken` first. */
  withdraw(vcpu: number): void
}

/**
 * One per VM, with a view per vCPU. The CPU mode asks `hasPending` before each VM entry (and when an interrupt window opens), and
 * `acknowledge` when it really delivers. Inputs come from lines and messages; it knows no device.
 */
export interface InterruptController extends Saveable {
  /** Called once by the kernel before the VM runs. */
  attach(sink: InterruptSink): void
  /** Called by a guest ABI in its `attach`, if it has such a thing. Absent: the controller cannot. */
  setEoiAssist?(assist: EoiAssist): void

  /** A line by global system interrupt number. Two callers of one number share it (wired-or). Undefined: no such input. */
  line(gsi: number): InterruptLine | undefined
  /** How many lines there are. */
  readonly lines: number
  readonly messages: MessageInterrupts

  /** @hot Whether a maskable interrupt waits whose priority exceeds the vCPU's task priority. IF is the CPU mode's affair. */
  hasPending(vcpu: number): boolean
  /** Take the highest pending vector (0 to 255): it is in service from now on. -1 if none is left (spurious). */
  acknowledge(vcpu: number): number

  /** @hot Pending `VcpuSignal` bits. */
  signals(vcpu: number): number
  /** Take one signal off. For `startup` returns the SIPI vector, else 0. */
  takeSignal(vcpu: number, signal: number): number

  /** CR8: bits 7:4 of the task-priority register. */
  readTaskPriority(vcpu: number): number
  writeTaskPriority(vcpu: number, priority: number): void

  /** MSRs of the controller (IA32_APIC_BASE, x2APIC, IA32_TSC_DEADLINE): value, or undefined when not the controller's. */
  readMsr(vcpu: number, index: number): bigint | undefined
  /** undefined: not the controller's; false: #GP; true: done. */
  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined

  /** Reset one vCPU's part (INIT), or all of it. */
  reset(vcpu?: number): void
}
export const InterruptController = token<InterruptController>('InterruptController')
