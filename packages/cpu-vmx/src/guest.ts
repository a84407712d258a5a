/**
 * The guest of one vCPU: the state shared by VM entry, VM exit and the exit handlers, and what they may do to it. The loop that runs it is
 * in vcpu.ts.
 */

import type { Gpa, HostMemory, Hpa, VcpuStatePatch, X86VcpuPorts } from '@nonroot/contracts'
import { VcpuGuest, type Siblings } from '@nonroot/vcpu'
import { EXIT, LEFT, S } from '@nonroot/x86'
import type { ProcessorOptions } from '@nonroot/x86'
import { ExitAccounting } from './exit/accounting.ts'
import { CurrentExit } from './exit/current-exit.ts'
import { ControlCache } from './exit/control-cache.ts'
import { recordEntryFailure } from './exit/record-exit.ts'
import { MsrAreas } from './features/msr-areas.ts'
import { PageModificationLog } from './features/page-modification-log.ts'
import { PauseLoop } from './exit/pause-loop.ts'
import { PreemptionTimer } from './features/preemption-timer.ts'
import { TaskPriorityShadow } from './features/task-priority.ts'
import { VmxBus } from './hypervisor/bus.ts'
import { VmxPagingPort } from './hypervisor/paging-port.ts'
import { ProcessorControl, SecondaryControl } from './tables/controls.ts'
import { initialiseVmcs } from './vmcs/initial-vmcs.ts'
import { GuestState } from './vmcs/resident-fields.ts'
import { Vmcs } from './vmcs/vmcs.ts'

export class VmxGuest extends VcpuGuest<VmxBus> {
  readonly vmcs: Vmcs
  readonly guestState: GuestState
  readonly controls: ControlCache
  readonly pagingPort: VmxPagingPort
  readonly timer: PreemptionTimer
  readonly taskPriority: TaskPriorityShadow
  readonly modificationLog: PageModificationLog
  readonly msrAreas: MsrAreas
  readonly accounting: ExitAccounting
  /** The VM exit being handled. */
  readonly current = new CurrentExit()
  /** Set at entry: some state must be saved at each exit and loaded at each entry. */
  switchesState = false
  private readonly host: HostMemory

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: Siblings,
    options: ProcessorOptions,
  ) {
    super(index, ports, new VmxBus(host, ports, index, siblings), options)
    this.host = host
    this.controls = new ControlCache(new PauseLoop(ports.clock))
    this.bus.onExitBehind = () => this.core.set32(S.attention, 1)
    this.vmcs = Vmcs.create(host)
    this.guestState = new GuestState(this.core)
    this.vmcs.resident = this.guestState
    this.accounting = new ExitAccounting(ports.metrics, ports.spans)
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

  /**
   * The event to be injected again was the processor's own, an exception or INT n: its delivery counts as an instruction, so that the count does not
   * depend on whether a page was there.
   */
  owesInstruction = false

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

  override writeState(patch: VcpuStatePatch): void {
    super.writeState(patch)
    this.vmcs.generation++
  }

  override reset(kind: 'powerUp' | 'init'): void {
    super.reset(kind)
    this.vmcs.generation++
  }

  override dispose(): void {
    this.vmcs.resident = undefined
    this.host.freeFrame(Number(this.vmcs.read('msrBitmaps')) as Hpa)
    this.vmcs.dispose()
    super.dispose()
  }
}
