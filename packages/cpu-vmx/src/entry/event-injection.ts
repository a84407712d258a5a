/**
 * Event injection: queued events, the windows they wait for, and what each VM entry injects, including events whose delivery was interrupted by an
 * exit. (SDM Vol. 3C, "Event Injection", "Interrupt-Window Exiting and Virtual-Interrupt Delivery", "Information for VM Exits That Occur During Event
 * Delivery")
 */

import type { SnapshotValue, VcpuEvent } from '@nonroot/contracts'
import { deliver, EXIT, FLAG, LEFT, S, SHADOW, VECTOR } from '@nonroot/x86'
import type { DeliveredEvent } from '@nonroot/x86'
import { ProcessorControl } from '../tables/controls.ts'
import {
  eventFromInfo,
  exceptionHasErrorCode,
  interruptionInfo,
  InterruptionType,
  interruptionType,
  isInterruptionValid,
} from '../tables/interruption-info.ts'
import type { VmExit } from '../exit/vm-exit.ts'
import type { VmxGuest } from '../guest.ts'

const NMI = interruptionInfo(InterruptionType.nmi, VECTOR.NMI)
const BREAKPOINT = 3
const OVERFLOW = 4
const WINDOWS = ProcessorControl.interruptWindowExiting | ProcessorControl.nmiWindowExiting

type Exception = Extract<VcpuEvent, { kind: 'exception' }>
type Interrupt = Extract<VcpuEvent, { kind: 'interrupt' }>

export class EventInjection {
  private readonly guest: VmxGuest
  private readonly exit: VmExit
  private interrupt: Interrupt | undefined
  private exception: Exception | undefined
  private nmis = 0
  /** An MTF exit is pending before the next instruction: an event was delivered under the flag, or this was injected. */
  mtfPending = false

  constructor(guest: VmxGuest, exit: VmExit) {
    this.guest = guest
    this.exit = exit
  }

  queue(event: VcpuEvent): void {
    if (event.kind === 'exception') this.exception = event
    else if (event.kind === 'interrupt') this.interrupt = event
    else this.queueNmi()
  }
  /** One waits behind the one that runs; a processor that runs none has two at most. Further ones merge with the last. (SDM Vol. 3A, "Handling Multiple NMIs") */
  queueNmi(): void {
    const most = this.guest.core.get32(S.nmiBlocked) === 0 ? 2 : 1
    if (this.nmis < most) this.nmis++
  }
  forget(): void {
    this.interrupt = this.exception = undefined
    this.nmis = 0
    this.mtfPending = false
    this.guest.owesInstruction = false
    this.guest.vmcs.write32('entryInterruptionInfo', 0)
  }

  /** VM entry will inject an event: one set by a handler, or one to be injected again. */
  get isInjecting(): boolean {
    return isInterruptionValid(this.guest.vmcs.read32('entryInterruptionInfo'))
  }

  /** VM entry: injects at most one event. If it cannot be delivered yet, requests a window. */
  enter(): void {
    if (this.isInjecting) return this.inject()
    // An instruction that waits for its device runs first.
    if (this.guest.bus.isCompleting) return
    this.takeWindows()
    this.injectPending()
  }

  /** Exits before the next instruction while the guest is at a window that the hypervisor has requested. */
  private takeWindows(): void {
    const { exit } = this
    const { controls, core } = this.guest
    core.set32(S.attention, 0)
    if ((controls.processor & WINDOWS) === 0) return
    while (controls.processor & ProcessorControl.nmiWindowExiting && this.isNmiWindowOpen) {
      if (exit.exit('nmiWindow', 0, 0, 0) === LEFT) return
    }
    while (controls.processor & ProcessorControl.interruptWindowExiting && this.isInterruptWindowOpen) {
      if (exit.exit('interruptWindow', 0, 0, 0) === LEFT) return
    }
    if (controls.processor & WINDOWS) core.set32(S.attention, 1)
  }

  get isInterruptWindowOpen(): boolean {
    const { core } = this.guest
    return (core.get32(S.flags) & FLAG.IF) !== 0 && this.isBetweenInstructions
  }
  /** On this processor, unlike some, the shadow of STI also blocks NMIs. */
  get isNmiWindowOpen(): boolean {
    const { core } = this.guest
    return core.get32(S.nmiBlocked) === 0 && this.isBetweenInstructions
  }
  /** No shadow, and no debug exception that comes first. (SDM Vol. 3C, "Delivery of Pending Debug Exceptions after VM Entry") */
  private get isBetweenInstructions(): boolean {
    const { core } = this.guest
    return core.get32(S.shadow) === SHADOW.none && core.pendingDebug === 0
  }

  private injectPending(): void {
    const { guest } = this
    const { interrupts } = guest.ports
    if (this.exception) {
      const event = this.exception
      this.exception = undefined
      return this.injectException(event)
    }
    if (this.nmis > 0) {
      if (this.isNmiWindowOpen) {
        this.nmis--
        this.give(NMI, 0)
        if (this.nmis > 0) this.awaitWindow(ProcessorControl.nmiWindowExiting)
        return
      }
      this.awaitWindow(ProcessorControl.nmiWindowExiting)
    }
    if (this.interrupt === undefined && !interrupts.hasPending(guest.index)) return
    if (!this.isInterruptWindowOpen) return this.awaitWindow(ProcessorControl.interruptWindowExiting)
    const vector = this.interrupt ? this.interrupt.vector : interrupts.acknowledge(guest.index)
    this.interrupt = undefined
    if (vector < 0) return
    this.give(interruptionInfo(InterruptionType.externalInterrupt, vector), 0)
    if (interrupts.hasPending(guest.index)) this.awaitWindow(ProcessorControl.interruptWindowExiting)
  }

  private awaitWindow(control: number): void {
    this.guest.setProcessorControl(control, true)
    this.guest.core.set32(S.attention, 1)
  }

  private injectException({ vector, errorCode, cr2 }: Exception): void {
    if (cr2 !== undefined) this.guest.core.set64(S.cr2, cr2)
    const withCode = errorCode !== undefined && exceptionHasErrorCode(vector)
    const isSoftware = vector === BREAKPOINT || vector === OVERFLOW
    const type = isSoftware ? InterruptionType.softwareException : InterruptionType.hardwareException
    this.give(interruptionInfo(type, vector, withCode), withCode ? errorCode : 0)
  }

  /** An event queued by the hypervisor: if an instruction caused it, RIP is already past that instruction. */
  private give(info: number, errorCode: number): void {
    const { vmcs } = this.guest
    vmcs.write32('entryInterruptionInfo', info)
    vmcs.write32('entryExceptionErrorCode', errorCode)
    vmcs.write32('entryInstructionLength', 0)
    this.inject()
  }

  /** Delivers the event in the VM-entry interruption-information field. */
  private inject(): void {
    const { guest } = this
    const { vmcs, core } = guest
    const info = vmcs.read32('entryInterruptionInfo')
    const event: DeliveredEvent = eventFromInfo(
      info,
      vmcs.read32('entryExceptionErrorCode'),
      vmcs.read32('entryInstructionLength'),
    )
    // Every exit clears the valid bit; one during this delivery may set it again (`reinjectOnEntry`).
    vmcs.write32('entryInterruptionInfo', 0)
    guest.activity = 'active'
    if (interruptionType(info) === InterruptionType.otherEvent) {
      this.mtfPending = true
      return
    }
    // An injected event replaces pending debug exceptions, except those that the shadow of MOV SS holds back from INT n and similar.
    if (event.length === 0 || core.get32(S.shadow) !== SHADOW.movSs) core.pendingDebug = 0
    const { owesInstruction } = guest
    const delivery = deliver(core, event)
    // If its delivery was cut short again, it owes what it owed before.
    guest.owesInstruction = delivery !== 'delivered' && owesInstruction
    if (delivery === 'delivered' && owesInstruction) core.set32(S.budget, core.get32(S.budget) - 1)
    core.set32(S.exit, EXIT.lookup)
    if (delivery === 'shutdown') guest.activity = 'shutdown'
    else if (delivery === 'delivered')
      this.mtfPending = (guest.controls.processor & ProcessorControl.monitorTrapFlag) !== 0
  }

  save(): SnapshotValue {
    const { vmcs } = this.guest
    const queued: VcpuEvent[] = []
    if (this.interrupt) queued.push(this.interrupt)
    for (let count = 0; count < this.nmis; count++) queued.push({ kind: 'nmi' })
    if (this.exception) queued.push(this.exception)
    return {
      queued: queued.map((event) => ({ ...event }) as SnapshotValue),
      injected: [
        vmcs.read32('entryInterruptionInfo'),
        vmcs.read32('entryExceptionErrorCode'),
        vmcs.read32('entryInstructionLength'),
      ],
    }
  }
  restore(saved: SnapshotValue): void {
    const { queued, injected } = saved as unknown as { queued: VcpuEvent[]; injected: [number, number, number] }
    const { vmcs } = this.guest
    for (const event of queued) this.queue(event)
    vmcs.write32('entryInterruptionInfo', injected[0])
    vmcs.write32('entryExceptionErrorCode', injected[1])
    vmcs.write32('entryInstructionLength', injected[2])
  }
}
