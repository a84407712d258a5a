/**
 * A virtual processor in non-root operation: the loop between VM entry and VM exit, and the `Vcpu` contract. What goes in is settled in
 * vm-entry.ts and event-injection.ts, how an exit is recorded in non-root.ts, what is done about it in handlers.ts.
 */

import type {
  ActivityState,
  GuestAbiVcpu,
  HostMemory,
  Hpa,
  PagingOutcome,
  Snapshot,
  Vcpu,
  VcpuEvent,
  VcpuExit,
  VcpuPorts,
  VcpuState,
  VcpuStatePatch,
} from '@nonroot/contracts'
import {
  EXIT,
  FLAG,
  gpr,
  LEFT,
  Processor,
  RAX,
  readRegisters,
  resetProcessor,
  S,
  TIER_METRICS,
  tierStatistics,
  writeRegisters,
} from '@nonroot/x86'
import type { Core, PrebuiltHandlers, RegionService, StopReason, TierMetric } from '@nonroot/x86'
import { createAbiVcpu } from './hypervisor/abi-vcpu.ts'
import { ExitAccounting } from './exit/accounting.ts'
import { ProcessorControl } from './tables/controls.ts'
import { CurrentExit } from './exit/current-exit.ts'
import type { EntryCheckContext } from './entry/checks/index.ts'
import { EventInjection } from './entry/event-injection.ts'
import { GuestState } from './vmcs/resident-fields.ts'
import { guestTranslate } from './hypervisor/guest-translate.ts'
import { HANDLERS, type ExitHandlers } from './hypervisor/exit-handlers.ts'
import { initialiseVmcs } from './vmcs/initial-vmcs.ts'
import { ControlCache } from './exit/intercepts.ts'
import { MsrAreas } from './features/msr-areas.ts'
import { NeutralExits } from './hypervisor/neutral-exits.ts'
import { NonRootOperation } from './exit/vm-exit.ts'
import { PageModificationLog } from './features/page-modification-log.ts'
import { VmxPagingPort } from './hypervisor/paging-port.ts'
import { PauseLoop } from './features/pause-loop.ts'
import { PreemptionTimer } from './features/preemption-timer.ts'
import { settleControls } from './entry/apply-controls.ts'
import { Surroundings } from './hypervisor/bus.ts'
import { TaskPriorityShadow } from './features/task-priority.ts'
import { restoreVcpu, saveVcpu } from './vcpu-snapshot.ts'
import { VmEntry } from './entry/vm-entry.ts'
import { Vmcs } from './vmcs/vmcs.ts'

export interface VmxVcpuOptions {
  /** Bytes for decoded code. */
  readonly codeCache?: number | undefined
  /** Who compiles hot code. Default: the vCPU's own thread. */
  readonly regions?: RegionService | undefined
  /** False: the interpreter tier alone. */
  readonly compile?: boolean
  readonly prebuilt?: PrebuiltHandlers | undefined
}

export class VmxVcpu implements Vcpu {
  readonly index: number
  readonly ports: VcpuPorts
  readonly core: Core
  readonly vmcs: Vmcs
  readonly controls: ControlCache
  readonly accounting: ExitAccounting
  readonly pagingPort: VmxPagingPort
  readonly abiVcpu: GuestAbiVcpu
  readonly surroundings: Surroundings
  readonly nonRoot: NonRootOperation
  readonly events: EventInjection
  readonly timer: PreemptionTimer
  readonly taskPriority: TaskPriorityShadow
  readonly modificationLog: PageModificationLog
  readonly msrAreas: MsrAreas
  /** Settled at entry: something is to be done at each exit and each entry. */
  switchesState = false
  /** The hypervisor's part. A test or a nested hypervisor may put its own in. */
  handlers: ExitHandlers = HANDLERS
  activity: ActivityState

  readonly current = new CurrentExit()
  readonly guestState: GuestState

  private readonly host: HostMemory
  private readonly processor: Processor
  private readonly entry: VmEntry
  private readonly exits = new NeutralExits()
  private running = false
  /** The slice was cut short by us. */
  private yielded = false
  private kicked = false
  private failure: string | undefined
  /** A neutral exit that a handler asked for. */
  private asked: VcpuExit | undefined

  constructor(
    index: number,
    host: HostMemory,
    ports: VcpuPorts,
    siblings: { count: number },
    context: EntryCheckContext,
    options: VmxVcpuOptions,
  ) {
    this.index = index
    this.host = host
    this.ports = ports
    this.activity = index === 0 ? 'active' : 'waitForStartup'
    this.controls = new ControlCache(new PauseLoop(ports.clock))
    this.surroundings = new Surroundings(host, ports, index, siblings)
    this.surroundings.onAccess = () => this.noticeInterrupts()
    this.surroundings.onExitBehind = () => this.core.set32(S.attention, 1)
    this.processor = new Processor(this.surroundings, {
      compile: options.compile ?? true,
      ...(options.codeCache === undefined ? {} : { codeCache: options.codeCache }),
      regions: options.regions,
      prebuilt: options.prebuilt,
    })
    this.core = this.processor.core
    this.vmcs = Vmcs.create(host)
    this.guestState = new GuestState(this.core)
    this.vmcs.resident = this.guestState
    this.accounting = new ExitAccounting(ports.metrics)
    this.abiVcpu = createAbiVcpu(index, this.core, (address) => this.translate(address))
    this.events = new EventInjection(this)
    this.timer = new PreemptionTimer(this.vmcs, ports.clock)
    this.taskPriority = this.surroundings.taskPriority = new TaskPriorityShadow(host, this.vmcs)
    this.modificationLog = new PageModificationLog(host, this.vmcs)
    this.msrAreas = new MsrAreas(host, this.vmcs, this.core)
    this.entry = new VmEntry(this, context)
    initialiseVmcs(this.vmcs, host, index)
    this.pagingPort = new VmxPagingPort(index, this.core, this.vmcs, () => settleControls(this))
    this.nonRoot = new NonRootOperation(this)
    this.core.hooks = this.nonRoot
    this.identify()
    ports.paging.attach(this.pagingPort)
    settleControls(this)
  }

  // --- the loop ---

  run(budget: number): VcpuExit {
    const { deferred } = this.surroundings
    if (deferred) {
      this.surroundings.deferred = undefined
      this.surroundings.complete(deferred, this.exits.answer(deferred))
    }
    const end = this.processor.retired + budget
    this.running = true
    if (this.switchesState) this.switchIn()
    try {
      return this.loop(end)
    } finally {
      this.running = false
      if (this.switchesState) this.switchOut()
    }
  }

  private loop(end: number): VcpuExit {
    const { processor } = this
    for (;;) {
      if (this.kicked) {
        this.kicked = false
        return this.exits.budget
      }
      const outside = this.enter()
      if (outside) return outside
      // Its delivery exited, or something exits before the first instruction: once more.
      if (this.events.isInjecting || this.exitsAtOnce()) continue
      const before = processor.retired
      const left = end - before
      if (left <= 0) return this.exits.budget
      const piece = this.timer.isActive ? this.timer.piece(left) : left
      let stop = this.runProcessor(piece)
      if (stop === 'budget' && !this.yielded) {
        // The block at RIP is longer than what is left: so that time goes on, go through it one by one.
        if (processor.retired === before) stop = this.runProcessor(0)
        else if (piece === left) return this.exits.budget
      }
      this.yielded = false
      if (this.taskPriority.isBelow) this.nonRoot.exitBelowThreshold()
      const exit = this.act(stop)
      if (exit) return exit
    }
  }

  /** One stay in the guest; a budget of 0 is one instruction. */
  private runProcessor(budget: number): StopReason | undefined {
    const { core, processor, surroundings } = this
    // An instruction that waits for its device goes first and alone; so does what STI and MOV SS shield while something waits.
    const alone = surroundings.isCompleting || (core.get32(S.shadow) !== 0 && core.get32(S.attention) !== 0)
    if (this.controls.processor & ProcessorControl.monitorTrapFlag) return this.trapped()
    if (alone) return processor.stepOverShadow()
    return budget > 0 ? processor.run(budget) : processor.step()
  }

  /** One instruction, or one round of a repeated one, or the delivery of the exception it ends in. (SDM Vol. 3C, "Monitor Trap Flag") */
  private trapped(): StopReason | undefined {
    const stop = this.processor.step()
    if (stop !== 'stop' && stop !== 'shutdown') this.nonRoot.exit('monitorTrapFlag', 0, 0, 0)
    return stop
  }

  /** Exits that need no instruction, by priority. (SDM Vol. 3C, "Other Causes of VM Exits") */
  private exitsAtOnce(): boolean {
    const { events, timer, nonRoot } = this
    if (events.mtfPending) {
      events.mtfPending = false
      nonRoot.exit('monitorTrapFlag', 0, 0, 0)
    } else if (timer.isActive && timer.isExpired) nonRoot.exit('preemptionTimer', 0, 0, 0)
    else return false
    return true
  }

  /** What the processor's stop means outside; undefined: go in again. */
  private act(stop: StopReason | undefined): VcpuExit | undefined {
    if (this.failure !== undefined) return this.failed()
    switch (stop) {
      case 'halt':
        this.activity = 'halted'
        return undefined
      case 'shutdown':
        this.activity = 'shutdown'
        return this.exits.shutdown
      case 'stop':
        return this.stopped()
      default:
        return undefined
    }
  }

  /** A door of the processor left it: for a device that takes its time, or as a handler asked. */
  private stopped(): VcpuExit | undefined {
    const { deferred } = this.surroundings
    if (deferred) return this.exits.deferred(deferred)
    const { asked } = this
    this.asked = undefined
    return asked
  }

  /** Everything before the guest runs: signals, activity, checks, injection. An exit if it cannot run now. */
  private enter(): VcpuExit | undefined {
    if (this.failure !== undefined) return this.failed()
    if (this.ports.interrupts.signals(this.index) !== 0) this.entry.takeSignals()
    if (this.activity === 'shutdown') return this.exits.shutdown
    if (this.activity === 'waitForStartup') return this.exits.halt
    if (!this.entry.check()) return this.failed()
    this.events.enter()
    if (this.failure !== undefined) return this.failed()
    const stopped = this.stopped()
    if (stopped) return stopped
    return this.activity === 'halted' ? this.exits.halt : undefined
  }

  /** VM exit: what goes back into the VMCS and its areas. */
  switchOut(): void {
    if (this.timer.isActive) this.timer.stop()
    const failed = this.msrAreas.isActive ? this.msrAreas.store() : 0
    if (failed) this.fail(`VMX abort: entry ${failed} of the VM-exit MSR-store area cannot be stored`)
  }
  /** VM entry: what comes out of them. */
  switchIn(): void {
    const failed = this.msrAreas.isActive ? this.msrAreas.load() : 0
    if (failed) this.entry.failLoading(failed)
    if (this.timer.isActive) this.timer.start()
  }

  /** @hot Something may be pending since the last look: see to it that the guest comes out once it can take it. */
  private noticeInterrupts(): void {
    if (!this.ports.interrupts.hasPending(this.index) && this.ports.interrupts.signals(this.index) === 0) return
    this.core.set32(S.attention, 1)
    if (this.core.get32(S.flags) & FLAG.IF || this.ports.interrupts.signals(this.index) !== 0) this.yield()
  }

  // --- what handlers ask for ---

  /** End this VM. */
  fail(message: string): typeof LEFT {
    this.failure ??= message
    this.core.set32(S.exit, EXIT.abandoned)
    this.yield()
    return LEFT
  }
  private yield(): void {
    if (!this.running) return
    this.yielded = true
    this.processor.yield()
  }
  get hasFailed(): boolean {
    return this.failure !== undefined
  }
  private failed(): VcpuExit {
    return this.exits.failure(this.core, this.failure!)
  }
  heed(outcome: PagingOutcome): void {
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
  /** Out of the guest in the middle of an instruction, of which nothing is done; the loop enters again. */
  leave(): typeof LEFT {
    this.core.set32(S.exit, EXIT.abandoned)
    return LEFT
  }
  /** A window or the like: no other control depends on it, so that nothing need be checked again. */
  setProcessorControl(bit: number, on: boolean): void {
    const { controls } = this
    controls.processor = on ? controls.processor | bit : controls.processor & ~bit
    this.vmcs.write32('processorControls', controls.processor >>> 0)
  }

  /** What bytes decode to has changed. Not while the guest runs. */
  forgetCode(): void {
    this.processor.blocks.reset()
  }

  // --- the Vcpu contract ---

  get instructionsRetired(): number {
    return this.processor.retired
  }

  get firstInstructionAt(): number | undefined {
    return this.processor.firstBlockAt
  }

  kick(): void {
    this.kicked = true
    this.yield()
  }

  inject(event: VcpuEvent): void {
    this.events.queue(event)
    this.yield()
  }

  get interruptWindow(): boolean {
    return this.events.isInterruptWindowOpen && !this.events.isInjecting
  }

  completeHypercall(result: bigint): void {
    this.core.set64(gpr(RAX), result)
  }

  translate(address: bigint): number | undefined {
    return guestTranslate(this.ports.guestMemory, this.pagingPort.guestPaging(), address)
  }

  readState(): VcpuState {
    return { ...readRegisters(this.core), activity: this.activity }
  }
  writeState(patch: VcpuStatePatch): void {
    writeRegisters(this.core, patch)
    if (patch.activity) this.activity = patch.activity
    this.vmcs.generation++
  }

  reset(kind: 'powerUp' | 'init'): void {
    resetProcessor(this.core, kind)
    if (kind === 'powerUp') this.identify()
    this.activity = this.index === 0 ? 'active' : 'waitForStartup'
    this.events.forget()
    this.surroundings.deferred = undefined
    this.asked = undefined
    this.failure = undefined
    this.vmcs.generation++
  }

  /** Only the first processor is the bootstrap processor. (SDM Vol. 3A, "IA32_APIC_BASE") */
  private identify(): void {
    const base = this.ports.interrupts.readMsr(this.index, 0x1b)
    const bootstrap = this.index === 0 ? 0x100n : 0n
    this.core.set64(S.apicBase, base ?? 0xfee0_0800n | bootstrap)
  }

  save(): Snapshot {
    return saveVcpu(this)
  }
  restore(snapshot: Snapshot): void {
    restoreVcpu(this, snapshot)
  }

  /** Bring the VMCS region up to date with the processor. */
  synchronise(): void {
    this.guestState.synchronise(this.vmcs)
  }

  sampleMetrics(): void {
    const scope = this.ports.metrics.scope('tiers')
    for (const [name, value] of Object.entries(tierStatistics(this.processor))) {
      const { unit, help } = TIER_METRICS[name as TierMetric]
      scope.gauge(name, help, unit).value = value
    }
  }

  dispose(): void {
    this.core.hooks = undefined
    this.vmcs.resident = undefined
    this.host.freeFrame(Number(this.vmcs.read('msrBitmaps')) as Hpa)
    this.vmcs.dispose()
    this.processor.dispose()
  }
}
