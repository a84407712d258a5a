/**
 * A virtual processor in non-root operation: the loop between VM entry and VM exit, and the `Vcpu` contract. The state it runs is in
 * guest.ts.
 */

import type { HostMemory, Snapshot, VcpuEvent, VcpuExit, X86VcpuPorts } from '@nonroot/contracts'
import { ProcessorVcpu, readSnapshot, writeSnapshot, type Siblings } from '@nonroot/vcpu'
import type { ProcessorOptions, StopReason } from '@nonroot/x86'
import type { EntryCheckContext } from './entry/checks/index.ts'
import { EventInjection } from './entry/event-injection.ts'
import { VmEntry } from './entry/vm-entry.ts'
import type { ExitAccounting } from './exit/accounting.ts'
import type { ExitHandlers } from './exit/exit-handler.ts'
import { VmExit } from './exit/vm-exit.ts'
import { VmxGuest } from './guest.ts'
import { HANDLERS } from './hypervisor/exit-handlers.ts'
import { ProcessorControl } from './tables/controls.ts'
import type { Vmcs } from './vmcs/vmcs.ts'

const SNAPSHOT = { type: 'vcpu.vmx', version: 2 }

export class VmxVcpu extends ProcessorVcpu<VmxGuest> {
  readonly events: EventInjection
  private readonly entry: VmEntry
  private readonly exit: VmExit

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: Siblings,
    context: EntryCheckContext,
    options: ProcessorOptions,
  ) {
    const guest = new VmxGuest(index, host, ports, siblings, options)
    super(guest)
    this.exit = new VmExit(guest, HANDLERS)
    this.events = new EventInjection(guest, this.exit)
    this.entry = new VmEntry(guest, this.events, context)
    guest.core.hooks = this.exit
    guest.resetApicBase()
    ports.paging.attach(guest.pagingPort)
    guest.applyControls()
  }

  get vmcs(): Vmcs {
    return this.guest.vmcs
  }
  get accounting(): ExitAccounting {
    return this.guest.accounting
  }
  /** Called at each exit. A test, a debugger or a nested hypervisor may replace them. */
  get handlers(): ExitHandlers {
    return this.exit.handlers
  }
  set handlers(handlers: ExitHandlers) {
    this.exit.handlers = handlers
  }

  // --- the loop ---

  override run(budget: number): VcpuExit {
    const { guest } = this
    if (guest.switchesState) guest.switchIn()
    try {
      return super.run(budget)
    } finally {
      if (guest.switchesState) guest.switchOut()
    }
  }

  protected override loop(end: number): VcpuExit {
    const { guest } = this
    const { processor, timer } = guest
    for (;;) {
      if (guest.processor.kicks.take()) return guest.exits.budget
      const outside = this.enter()
      if (outside) return outside
      // The delivery exited, or an exit is due before the first instruction: enter again.
      if (this.events.isInjecting || this.exitsAtOnce()) continue
      const before = processor.retired
      const left = end - before
      if (left <= 0) return guest.exits.budget
      const piece = timer.isActive ? timer.piece(left) : left
      let stop = this.runProcessor(piece)
      if (stop === 'budget' && !guest.yielded) {
        // The block at RIP is longer than the remaining budget: single-step, so that time advances.
        if (processor.retired === before) stop = this.runProcessor(0)
        else if (piece === left) return guest.exits.budget
      }
      guest.yielded = false
      if (guest.taskPriority.isBelow) this.exit.exitBelowThreshold()
      const exit = this.act(stop)
      if (exit) return exit
    }
  }

  /** Runs guest code until the processor stops. A budget of 0 runs one instruction. */
  private runProcessor(budget: number): StopReason | undefined {
    const { processor, bus, controls } = this.guest
    if (controls.processor & ProcessorControl.monitorTrapFlag) return this.trapped()
    // An instruction that waits for its device runs first, and alone.
    return budget > 0 && !bus.isCompleting ? processor.run(budget) : processor.step()
  }

  /** Runs one instruction, or one iteration of a repeated one, or delivers the exception that it raises. (SDM Vol. 3C, "Monitor Trap Flag") */
  private trapped(): StopReason | undefined {
    const stop = this.guest.processor.step()
    if (stop !== 'stop' && stop !== 'shutdown') this.exit.exit('monitorTrapFlag', 0, 0, 0)
    return stop
  }

  /** Exits that need no instruction, in order of priority. (SDM Vol. 3C, "Other Causes of VM Exits") */
  private exitsAtOnce(): boolean {
    const { events, exit } = this
    const { timer } = this.guest
    if (events.mtfPending) {
      events.mtfPending = false
      exit.exit('monitorTrapFlag', 0, 0, 0)
    } else if (timer.isActive && timer.isExpired) exit.exit('preemptionTimer', 0, 0, 0)
    else return false
    return true
  }

  /** All that precedes guest code: signals, activity, checks, injection. Returns an exit if the guest cannot run now. */
  private enter(): VcpuExit | undefined {
    const { guest } = this
    const { exits } = guest
    if (guest.failure !== undefined) return this.failed()
    if (guest.ports.interrupts.signals(this.index) !== 0) this.entry.takeSignals()
    if (guest.activity === 'shutdown') return exits.shutdown
    if (guest.activity === 'waitForStartup') return exits.halt
    if (!this.entry.check()) return this.failed()
    this.events.enter()
    if (guest.failure !== undefined) return this.failed()
    const stopped = guest.takeExit()
    if (stopped) return stopped
    // A debug exception ends a halt.
    if (guest.activity === 'halted' && guest.core.pendingDebug) guest.activity = 'active'
    return guest.activity === 'halted' ? exits.halt : undefined
  }
  private failed(): VcpuExit {
    const { exits, core, failure } = this.guest
    return exits.failure(core, failure!)
  }

  // --- the Vcpu contract ---

  override inject(event: VcpuEvent): void {
    this.events.queue(event)
    this.guest.yield()
  }

  override get interruptWindow(): boolean {
    return this.events.isInterruptWindowOpen && !this.events.isInjecting
  }

  override reset(kind: 'powerUp' | 'init'): void {
    this.guest.reset(kind)
    this.events.forget()
  }

  override save(): Snapshot {
    return writeSnapshot(SNAPSHOT, {
      state: this.readState(),
      tscOffset: this.vmcs.read('tscOffset'),
      events: this.events.save(),
    })
  }
  override restore(snapshot: Snapshot): void {
    const { state, tscOffset, events } = readSnapshot(SNAPSHOT, snapshot)
    this.reset('powerUp')
    this.writeState(state)
    this.vmcs.write('tscOffset', tscOffset)
    this.events.restore(events)
  }

  /** Writes the processor's state to the VMCS region. */
  synchronise(): void {
    this.guest.guestState.synchronise(this.vmcs)
  }
}
