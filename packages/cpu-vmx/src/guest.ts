/**
 * The guest of one vCPU: the state shared by VM entry, VM exit and the exit handlers, and what they may do to it. The loop that runs it is
 * in vcpu.ts.
 */

import type {
  ActivityState,
  Gpa,
  GuestAbiVcpu,
  HostMemory,
  Hpa,
  PagingOutcome,
  VcpuExit,
  X86VcpuPorts,
  VcpuStatePatch,
} from '@nonroot/contracts'
import { EXIT, FLAG, LEFT, Processor, resetProcessor, S, writeRegisters } from '@nonroot/x86'
import type { Core, ProcessorOptions } from '@nonroot/x86'
import { ExitAccounting } from './exit/accounting.ts'
import { CurrentExit } from './exit/current-exit.ts'
import { ControlCache } from './exit/control-cache.ts'
import { recordEntryFailure } from './exit/record-exit.ts'
import { MsrAreas } from './features/msr-areas.ts'
import { PageModificationLog } from './features/page-modification-log.ts'
import { PauseLoop } from './exit/pause-loop.ts'
import { PreemptionTimer } from './features/preemption-timer.ts'
import { TaskPriorityShadow } from './features/task-priority.ts'
import { createAbiVcpu } from './hypervisor/abi-vcpu.ts'
import { ProcessorBus } from './hypervisor/bus.ts'
import { guestTranslate } from './hypervisor/guest-translate.ts'
import { NeutralExits } from './hypervisor/neutral-exits.ts'
import { VmxPagingPort } from './hypervisor/paging-port.ts'
import { ProcessorControl, SecondaryControl } from './tables/controls.ts'
import { initialiseVmcs } from './vmcs/initial-vmcs.ts'
import { GuestState } from './vmcs/resident-fields.ts'
import { Vmcs } from './vmcs/vmcs.ts'

export class VmxGuest {
  readonly index: number
  readonly ports: X86VcpuPorts
  readonly processor: Processor
  readonly core: Core
  readonly vmcs: Vmcs
  readonly guestState: GuestState
  readonly controls: ControlCache
  readonly bus: ProcessorBus
  readonly pagingPort: VmxPagingPort
  readonly abiVcpu: GuestAbiVcpu
  readonly timer: PreemptionTimer
  readonly taskPriority: TaskPriorityShadow
  readonly modificationLog: PageModificationLog
  readonly msrAreas: MsrAreas
  readonly accounting: ExitAccounting
  /** Exits that leave the vCPU. */
  readonly exits = new NeutralExits()
  /** The VM exit being handled. */
  readonly current = new CurrentExit()
  activity: ActivityState
  /** Set at entry: some state must be saved at each exit and loaded at each entry. */
  switchesState = false
  /** The vCPU is inside `run`. */
  running = false
  /** The current slice was ended by `yield`. */
  yielded = false
  /** Why this vCPU cannot go on. */
  failure: string | undefined
  /** The exit that a handler asked the vCPU to return. */
  asked: VcpuExit | undefined
  private readonly host: HostMemory

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: { count: number },
    options: ProcessorOptions,
  ) {
    this.index = index
    this.host = host
    this.ports = ports
    this.activity = index === 0 ? 'active' : 'waitForStartup'
    this.controls = new ControlCache(new PauseLoop(ports.clock))
    this.bus = new ProcessorBus(host, ports, index, siblings)
    this.bus.onAccess = () => this.noticeInterrupts()
    this.bus.onExitBehind = () => this.core.set32(S.attention, 1)
    this.processor = new Processor(this.bus, options)
    this.core = this.processor.core
    this.vmcs = Vmcs.create(host)
    this.guestState = new GuestState(this.core)
    this.vmcs.resident = this.guestState
    this.accounting = new ExitAccounting(ports.metrics)
    this.abiVcpu = createAbiVcpu(index, this.core, (address) => this.translate(address))
    this.timer = new PreemptionTimer(this.vmcs, ports.clock)
    this.taskPriority = this.bus.taskPriority = new TaskPriorityShadow(host, this.vmcs)
    this.modificationLog = new PageModificationLog(host, this.vmcs)
    this.msrAreas = new MsrAreas(host, this.vmcs, this.core)
    initialiseVmcs(this.vmcs, host, index)
    this.pagingPort = new VmxPagingPort(index, this.core, this.vmcs, () => this.applyControls())
  }

  /** Caches what is derived from the VM-execution controls. Called after each change of them. */
  applyControls(): void {
    const { controls, vmcs, bus, pagingPort } = this
    controls.refresh(vmcs)
    this.core.set32(S.pauseExits, controls.pauseMayExit ? 1 : 0)
    this.taskPriority.settle(controls)
    this.modificationLog.settle(controls)
    const offsetting = (controls.processor & ProcessorControl.useTscOffsetting) !== 0
    const scaling = offsetting && (controls.secondary & SecondaryControl.useTscScaling) !== 0
    this.guestState.setTscOffsetting(vmcs, offsetting)
    bus.tscMultiplier = scaling ? vmcs.read('tscMultiplier') : undefined
    // Writes to memory reach the bus only if the processor walks the hypervisor's tables.
    bus.onTableWrite = pagingPort.intercepts.pageFault
      ? (address, size) => this.accept(this.ports.paging.onTableUpdate(pagingPort, address, size))
      : undefined
  }

  /** Sets one processor-based control, for example a window, on which no entry check depends. */
  setProcessorControl(bit: number, on: boolean): void {
    const { controls } = this
    controls.processor = on ? controls.processor | bit : controls.processor & ~bit
    this.vmcs.write32('processorControls', controls.processor >>> 0)
  }

  /** VM exit: saves the timer and the guest's MSRs. */
  switchOut(): void {
    if (this.timer.isActive) this.timer.stop()
    const failed = this.msrAreas.isActive ? this.msrAreas.store() : 0
    if (failed) this.fail(`VMX abort: entry ${failed} of the VM-exit MSR-store area cannot be stored`)
  }
  /** VM entry: loads them. (SDM Vol. 3C, "VM-Entry Failures During or After Loading Guest State") */
  switchIn(): void {
    const failed = this.msrAreas.isActive ? this.msrAreas.load() : 0
    if (failed) {
      recordEntryFailure(this.vmcs, 'entryFailureMsrLoading', failed)
      this.fail(`VM entry failed: entry ${failed} of the VM-entry MSR-load area cannot be loaded`)
    }
    if (this.timer.isActive) this.timer.start()
  }

  /** @hot Ends the slice if another thread asked for it. Devices and VM exits take longer than the instructions that they are counted as. */
  noticeKick(): void {
    if (this.processor.kicks.isRequested) this.yield()
  }

  /** @hot After an access that may have made an interrupt pending: ends the slice if the guest can take it. */
  private noticeInterrupts(): void {
    this.noticeKick()
    const { interrupts } = this.ports
    if (!interrupts.hasPending(this.index) && interrupts.signals(this.index) === 0) return
    this.core.set32(S.attention, 1)
    if (this.core.get32(S.flags) & FLAG.IF || interrupts.signals(this.index) !== 0) this.yield()
  }

  /** Ends the slice at the next block. */
  yield(): void {
    if (!this.running) return
    this.yielded = true
    this.processor.yield()
  }
  /**
   * The event to be injected again was the processor's own, an exception or INT n: its delivery counts as an instruction, so that the count does not
   * depend on whether a page was there.
   */
  owesInstruction = false

  /** Makes `run` return. */
  kick(): void {
    this.processor.kicks.request()
    this.yield()
  }

  /** Ends this VM; the first message is the one reported. */
  fail(message: string): typeof LEFT {
    this.failure ??= message
    this.core.set32(S.exit, EXIT.abandoned)
    this.yield()
    return LEFT
  }
  get hasFailed(): boolean {
    return this.failure !== undefined
  }
  /** Handles the outcome of a paging strategy that can only be `resume` or `failure`. */
  accept(outcome: PagingOutcome): void {
    if (outcome.next === 'failure') this.fail(outcome.message)
  }

  shutdown(): void {
    this.activity = 'shutdown'
    this.asked = this.exits.shutdown
  }
  leaveForHypercall(): typeof LEFT {
    const { core } = this
    this.asked = this.exits.hypercall(core)
    core.set64(S.rip, core.nextRip())
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }
  /** Leaves the guest after the instruction, asleep as after HLT. */
  halt(): typeof LEFT {
    const { core } = this
    this.activity = 'halted'
    core.set64(S.rip, core.nextRip())
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }
  /** Leaves the guest in the middle of an instruction, without any of its effects, until a page is there. */
  leaveForMemory(address: Gpa): typeof LEFT {
    this.asked = this.exits.memory(address)
    return this.leave()
  }
  /** Leaves the guest in the middle of an instruction, without any of its effects; the loop enters again. */
  leave(): typeof LEFT {
    this.core.set32(S.exit, EXIT.abandoned)
    return LEFT
  }

  translate(address: bigint): number | undefined {
    return guestTranslate(this.ports.guestMemory, this.pagingPort.guestPaging(), address)
  }

  writeState(patch: VcpuStatePatch): void {
    writeRegisters(this.core, patch)
    if (patch.activity) this.activity = patch.activity
    this.vmcs.generation++
  }

  /** Resets all but the queued events. */
  reset(kind: 'powerUp' | 'init'): void {
    resetProcessor(this.core, kind)
    if (kind === 'powerUp') this.resetApicBase()
    this.activity = this.index === 0 ? 'active' : 'waitForStartup'
    this.bus.deferred = undefined
    this.asked = undefined
    this.failure = undefined
    this.vmcs.generation++
  }
  /** Only the first processor is the bootstrap processor. (SDM Vol. 3A, "IA32_APIC_BASE") */
  resetApicBase(): void {
    const base = this.ports.interrupts.readMsr(this.index, 0x1b)
    const bootstrap = this.index === 0 ? 0x100n : 0n
    this.core.set64(S.apicBase, base ?? 0xfee0_0800n | bootstrap)
  }

  dispose(): void {
    this.vmcs.resident = undefined
    this.host.freeFrame(Number(this.vmcs.read('msrBitmaps')) as Hpa)
    this.vmcs.dispose()
    this.processor.dispose()
  }
}
