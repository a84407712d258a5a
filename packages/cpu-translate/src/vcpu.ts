/**
 * A virtual processor without VMX: the loop that chooses what runs next — the guest's user code directly, its 64-bit kernel code translated, all other
 * code by the monitor's interpreter — and the `Vcpu` contract. The state it runs is in monitor/guest.ts.
 */

import { VcpuSignal } from '@nonroot/contracts'
import type { HostMemory, Snapshot, VcpuEvent, VcpuExit, X86VcpuPorts } from '@nonroot/contracts'
import { ProcessorVcpu, readSnapshot, writeSnapshot, type Siblings } from '@nonroot/vcpu'
import { FLAG, MODE, S, SEGMENT, setRealSegment, setShadow, SHADOW, VECTOR } from '@nonroot/x86'
import type { StopReason } from '@nonroot/x86'
import { Guest, type TranslateVcpuOptions } from './monitor/guest.ts'
import { MonitorHooks } from './monitor/hooks.ts'
import { Statistics } from './monitor/statistics.ts'
import { POINT } from './translation/points.ts'

type Kind = 'user' | 'kernel' | 'one' | 'interpreter'

const SNAPSHOT = { type: 'vcpu.translate', version: 1 }

export class TranslateVcpu extends ProcessorVcpu<Guest> {
  readonly hooks: MonitorHooks
  readonly statistics: Statistics
  readonly #translates: boolean

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: Siblings,
    options: TranslateVcpuOptions,
  ) {
    super(new Guest(index, host, ports, siblings, options))
    this.#translates = options.translates
    this.statistics = new Statistics(ports.metrics)
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
        return this.#runUser(end)
      case 'kernel':
        return this.#runKernel(end)
      case 'one':
        return this.#runOne()
      case 'interpreter':
        return this.#interpret(end)
    }
  }

  /** The virtual CPU executes one instruction: the monitor's only emulator is the processor itself. */
  #runOne(): StopReason | undefined {
    this.statistics.emulated.value++
    return this.guest.processor.step()
  }

  #interpret(end: number): StopReason | undefined {
    const { guest } = this
    const { processor } = guest
    const before = processor.retired
    guest.interpreting = true
    const stop = this.#runProcessor(end)
    guest.interpreting = false
    this.statistics.interpreted.value += processor.retired - before
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

  #runUser(end: number): StopReason | undefined {
    const { guest } = this
    const before = guest.processor.retired
    guest.worlds.enterUser()
    const stop = this.#runProcessor(end)
    guest.worlds.leave()
    this.statistics.direct.value += guest.processor.retired - before
    const vector = this.hooks.takeException()
    if (guest.core.get32(S.cpl) !== 3) {
      guest.fail('user code reached another privilege level without an exception')
      return undefined
    }
    if (vector < 0) return stop
    this.statistics.trapped(vector)
    return guest.asked ? stop : this.#runOne()
  }

  /** Translated code, until something other than the end of a block stops it. */
  #runKernel(end: number): StopReason | undefined {
    const { guest } = this
    const { core, translations, processor, worlds } = guest
    const before = processor.retired
    if (this.#translates) {
      translations.settle()
      const offset = translations.at(core.get32(S.rip), core.get32(S.rip + 4))
      if (offset < 0) return guest.asked || guest.failure ? 'stop' : this.#runOne()
      worlds.enterKernel()
      translations.enter(offset)
    } else worlds.enterKernel()
    let stop: StopReason | undefined
    do stop = this.#runProcessor(end)
    while (this.#translates && stop === 'stop' && this.#follow() && !this.#isDue(end))
    if (this.#translates) this.#toGuest()
    worlds.leave()
    this.statistics.translated.value += processor.retired - before
    const vector = this.hooks.takeException()
    if (vector < 0) return stop
    this.statistics.trapped(vector)
    return guest.asked || translations.mustMove ? undefined : this.#runOne()
  }
  #isDue(end: number): boolean {
    const { guest } = this
    return guest.yielded || end - guest.processor.retired <= 0 || guest.processor.kicks.isRequested
  }

  /** Translated code called the monitor: it goes on at once, if the end of a block or a frequent instruction is all there is to it. */
  #follow(): boolean {
    const { hooks } = this
    const { core, translations, shortcuts } = this.guest
    const { points } = translations
    if (hooks.vector !== VECTOR.GP) return false
    const point = translations.pointAtRip()
    if (point < 0) return false
    const kind = points.kind(point)
    const low = points.low(point)
    const high = points.high(point)
    const { epoch } = translations
    if (kind !== POINT.exit && kind !== POINT.moved) {
      const offset = shortcuts.run(point, kind, core.get32(S.rip))
      if (offset < 0) {
        if (translations.epoch !== epoch) this.#setRip(low, high)
        return false
      }
      hooks.vector = -1
      translations.enter(offset)
      // It counts as an instruction.
      core.set32(S.budget, core.get32(S.budget) - 1)
      this.statistics.shortcuts.value++
      return true
    }
    const target = translations.link(point)
    hooks.vector = -1
    if (target >= 0) translations.enter(target)
    else this.#setRip(low, high)
    return target >= 0
  }
  #setRip(low: number, high: number): void {
    this.core.set32(S.rip, low)
    this.core.set32(S.rip + 4, high)
  }

  /** RIP becomes the guest's, wherever in the cache it is. */
  #toGuest(): void {
    const { translations, core } = this.guest
    if (!translations.contains(core.get32(S.rip), core.get32(S.rip + 4))) return
    const point = translations.pointAtRip()
    if (point >= 0) {
      const { shortcuts } = this.guest
      if (shortcuts.shadowAt === core.get32(S.rip)) setShadow(core, SHADOW.sti)
      shortcuts.shadowAt = -1
      return translations.leaveAt(point)
    }
    this.guest.fail(`translated code stopped at offset ${core.get32(S.rip)} of its cache, where no instruction begins`)
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
    this.statistics.sample(this.guest.translations)
  }
}
