/**
 * A virtual processor without VMX: the loop that chooses what runs next — the guest's user code directly, its 64-bit kernel code translated, all other
 * code by the monitor's interpreter — and the `Vcpu` contract. The state it runs is in monitor/guest.ts.
 */

import { VcpuSignal } from '@nonroot/contracts'
import type { HostMemory, Snapshot, VcpuEvent, VcpuExit, X86VcpuPorts } from '@nonroot/contracts'
import { ProcessorVcpu, readSnapshot, writeSnapshot, type Siblings } from '@nonroot/vcpu'
import { FLAG, MODE, S, SEGMENT, setRealSegment, SHADOW } from '@nonroot/x86'
import type { StopReason } from '@nonroot/x86'
import { Guest, type TranslateVcpuOptions } from './monitor/guest.ts'
import { MonitorHooks } from './monitor/hooks.ts'

type Kind = 'user' | 'kernel' | 'one' | 'interpreter'

const SNAPSHOT = { type: 'vcpu.translate', version: 1 }

export class TranslateVcpu extends ProcessorVcpu<Guest> {
  readonly hooks: MonitorHooks

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: Siblings,
    options: TranslateVcpuOptions,
  ) {
    super(new Guest(index, host, ports, siblings, options))
    const { core } = this.guest
    core.hooks = this.hooks = new MonitorHooks(this.guest)
    this.guest.resetApicBase()
    ports.paging.attach(this.guest.pagingPort)
  }

  // --- the loop ---

  protected override loop(end: number): VcpuExit {
    const { guest } = this
    const { processor, exits } = guest
    for (;;) {
      if (guest.failure !== undefined) return exits.failure(guest.core, guest.failure)
      if (processor.kicks.take()) return exits.budget
      const outside = this.#enter()
      if (outside) return outside
      const left = end - processor.retired
      if (left <= 0) return exits.budget
      const stop = this.#run(end)
      guest.yielded = false
      const exit = this.act(stop)
      if (exit) return exit
    }
  }

  /** All that precedes guest code: signals, activity, events. Returns an exit if the guest cannot run now. */
  #enter(): VcpuExit | undefined {
    const { guest } = this
    const { exits, core, events, bus } = guest
    if (guest.ports.interrupts.signals(this.index) !== 0) this.#takeSignals()
    if (guest.activity === 'shutdown') return exits.shutdown
    if (guest.activity === 'waitForStartup') return exits.halt
    // An instruction that waits for its device runs first.
    if (!bus.isCompleting) {
      const delivery = events.next()
      if (delivery !== undefined) guest.activity = 'active'
      if (delivery === 'shutdown') guest.activity = 'shutdown'
    }
    if (guest.failure !== undefined) return exits.failure(core, guest.failure)
    const stopped = guest.takeExit()
    if (stopped) return stopped
    // A debug exception ends a halt.
    if (guest.activity === 'halted' && core.pendingDebug) guest.activity = 'active'
    return guest.activity === 'halted' ? exits.halt : undefined
  }

  #takeSignals(): void {
    const { guest } = this
    const { interrupts } = guest.ports
    const signals = interrupts.signals(this.index)
    if (signals & VcpuSignal.init) {
      interrupts.takeSignal(this.index, VcpuSignal.init)
      guest.reset('init')
      guest.events.forget()
    }
    if (signals & VcpuSignal.startup) {
      const vector = interrupts.takeSignal(this.index, VcpuSignal.startup)
      // Ignored unless the vCPU waits for SIPI.
      if (guest.activity === 'waitForStartup') {
        setRealSegment(guest.core, SEGMENT.cs, vector << 8)
        guest.writeState({ rip: 0n, activity: 'active' })
      }
    }
    if (signals & VcpuSignal.smi) interrupts.takeSignal(this.index, VcpuSignal.smi)
    while (interrupts.signals(this.index) & VcpuSignal.nmi) {
      interrupts.takeSignal(this.index, VcpuSignal.nmi)
      guest.events.queueNmi()
    }
  }

  /** How the code at RIP runs. */
  #kind(): Kind {
    const { core, bus, events } = this.guest
    const flags = core.get32(S.flags)
    if (bus.isCompleting || events.interrupted || core.get32(S.shadow) !== SHADOW.none || core.pendingDebug) return 'one'
    const mode = core.get32(S.mode)
    const cpl = core.get32(S.cpl)
    if (cpl === 3 && mode & MODE.protectedMode) return 'user'
    if ((mode & MODE.codeSize) !== 2) return 'interpreter'
    return cpl !== 0 || flags & FLAG.TF || core.debugging ? 'one' : 'kernel'
  }

  #run(end: number): StopReason | undefined {
    switch (this.#kind()) {
      case 'user':
        this.guest.worlds.enterUser()
        return this.#runDeprivileged(end)
      case 'kernel':
        if (this.guest.enterKernel()) return this.#runDeprivileged(end)
        return this.guest.asked || this.guest.failure ? 'stop' : this.#runOne()
      case 'one':
        return this.#runOne()
      case 'interpreter':
        return this.#interpret(end)
    }
  }

  /** The virtual CPU executes one instruction: the monitor's only emulator is the processor itself. */
  #runOne(): StopReason | undefined {
    this.guest.statistics.emulated.value++
    this.hooks.execute()
    return this.guest.processor.step()
  }

  #interpret(end: number): StopReason | undefined {
    const { guest } = this
    const { processor } = guest
    const before = processor.retired
    guest.interpreting = true
    const stop = this.#runProcessor(end)
    guest.interpreting = false
    this.guest.statistics.interpreted.value += processor.retired - before
    return stop
  }

  #runProcessor(end: number): StopReason | undefined {
    const { guest } = this
    const { processor } = guest
    const before = processor.retired
    const stop = processor.run(end - before)
    // The block at RIP is longer than the remaining budget: single-step, so that time advances.
    return stop === 'budget' && !guest.yielded && processor.retired === before ? processor.step() : stop
  }

  /** Until something stops it that is not answered on the way (monitor/calls.ts). What ran first need not be what stopped. */
  #runDeprivileged(end: number): StopReason | undefined {
    const { guest } = this
    const { core, processor, statistics, translations, worlds } = guest
    statistics.start(processor.retired)
    const stop = this.#runProcessor(end)
    const world = worlds.current
    statistics.ran(world, processor.retired)
    if (world === 'kernel') guest.leaveCache()
    worlds.leave()
    const vector = this.hooks.takeException()
    if (world === 'user' && core.get32(S.cpl) !== 3) {
      guest.fail('user code reached another privilege level without an exception')
      return undefined
    }
    // Of a slice of one instruction the trap was all.
    if (vector < 0) return stop === 'budget' && this.hooks.executes ? this.#runOne() : stop
    statistics.trapped(vector)
    return guest.asked || (world === 'kernel' && translations.mustMove) ? undefined : this.#runOne()
  }

  // --- the Vcpu contract ---

  override inject(event: VcpuEvent): void {
    this.guest.events.queue(event)
    this.guest.yield()
  }
  override get interruptWindow(): boolean {
    return this.guest.events.isWindowOpen && !this.guest.events.interrupted
  }
  override reset(kind: 'powerUp' | 'init'): void {
    this.guest.reset(kind)
    this.guest.events.forget()
  }

  override save(): Snapshot {
    return writeSnapshot(SNAPSHOT, {
      state: this.readState(),
      tscOffset: this.core.get64(S.tscOffset),
      events: this.guest.events.save(),
    })
  }
  override restore(snapshot: Snapshot): void {
    const { state, tscOffset, events } = readSnapshot(SNAPSHOT, snapshot)
    this.reset('powerUp')
    this.writeState(state)
    this.core.set64(S.tscOffset, tscOffset)
    this.guest.events.restore(events)
  }

  override sampleMetrics(): void {
    super.sampleMetrics()
    this.guest.statistics.sample(this.guest.translations)
  }
}
