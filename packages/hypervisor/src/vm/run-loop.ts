/** The loop around a VM's vCPUs: time, slices, neutral exits, sleep. Independent of devices and CPU modes. @hot */

import type {
  Counter,
  Gpa,
  GuestFrames,
  InterruptSink,
  IoBus,
  KickAddress,
  Metrics,
  Schedulable,
  Vcpu,
  VmEnd,
  WakeReason,
} from '@nonroot/contracts'
import type { KernelClock } from '../time/clock.ts'
import { TURN_NS } from './host-thread.ts'
import type { HostThread, ScheduledVm } from './host-thread.ts'
import { retryAccess } from './deferred-access.ts'
import type { DeferredAccess } from './deferred-access.ts'
import { SliceLength } from './slice-length.ts'
import type { PowerSwitch } from './power.ts'
import type { Tracer } from './tracer.ts'

/** Result of an unknown hypercall: minus one. */
const UNKNOWN_HYPERCALL = 0xffff_ffff_ffff_ffffn

export interface RunLoopParts {
  readonly vcpus: readonly Vcpu[]
  readonly clock: KernelClock
  readonly io: IoBus
  readonly frames: Pick<GuestFrames, 'ready'>
  readonly power: PowerSwitch
  readonly host: HostThread
  readonly claim: Omit<Schedulable, 'vcpu'>
  readonly metrics: Metrics
  readonly tracer: Tracer | undefined
  /** A vCPU was ready while others ran (`GuestAbi.accountSteal`). */
  readonly accountSteal: ((vcpu: number, ns: number) => void) | undefined
  /** Called before a vCPU enters the guest after a pause or halt (`GuestAbi.onEntry`). */
  readonly onEntry: ((vcpu: number) => void) | undefined
  /** Devices complete requests in flight: memory lent to them belongs to the next guest after a reset. */
  readonly quiesce: () => Promise<void>
  /** Resets the machine. Returns how the VM ends if it must not restart. */
  readonly reset: () => Promise<VmEnd | undefined>
}

/** A vCPU of this VM, to the scheduler. */
interface Seat extends Schedulable {
  readonly kickAddress: KickAddress
}

export class RunLoop implements InterruptSink, ScheduledVm {
  readonly vcpus: readonly Seat[]
  readonly #parts: RunLoopParts
  readonly #vcpus: readonly Vcpu[]
  readonly #clock: KernelClock
  readonly #deterministic: boolean
  /** 1: runnable. 0: halted. */
  readonly #runnable: Uint8Array
  readonly #instructions: Float64Array
  /** vCPUs whose steal time has changed: 1. */
  readonly #stolen: Uint8Array
  /** Index of the vCPU inside `run`, or -1. */
  #inside = -1
  readonly #length: SliceLength
  /** Of a deterministic machine: the vCPU whose turn it is. */
  #turn: number
  #deferred: DeferredAccess | undefined
  /** Work for which the guest waits, without guest time passing. */
  #held: Promise<unknown>[] = []
  /** Something between two slices takes its time: no guest code may run. */
  #isAway = false
  #isPaused = false
  /** When all vCPUs had halted, in ms. */
  #idleSince: number | undefined
  /** vCPUs that wait for a page of memory. */
  #awaiting = 0
  #settle: { resolve(end: VmEnd): void; reject(error: unknown): void } | undefined
  readonly #exits: Readonly<Record<string, Counter>>
  readonly #runNs: Counter
  readonly #idleNs: Counter
  readonly #stolenNs: Counter
  readonly #timers: Counter

  constructor(parts: RunLoopParts) {
    this.#parts = parts
    this.#vcpus = parts.vcpus
    this.vcpus = parts.vcpus.map(({ index, kickAddress }) => ({ ...parts.claim, vcpu: index, kickAddress }))
    this.#clock = parts.clock
    this.#deterministic = parts.clock.kind === 'deterministic'
    this.#runnable = new Uint8Array(parts.vcpus.length).fill(1)
    this.#length = new SliceLength(parts.clock)
    this.#turn = parts.vcpus.length - 1
    this.#stolen = new Uint8Array(parts.vcpus.length)
    this.#instructions = Float64Array.from(parts.vcpus, (vcpu) => vcpu.instructionsRetired)
    const { metrics } = parts
    const returns = metrics.scope('returns')
    const names = ['portIo', 'mmio', 'hypercall', 'halt', 'memory', 'shutdown', 'budget', 'failure']
    this.#exits = Object.fromEntries(
      names.map((name) => [name, returns.counter(name, `returns of vCPUs to the run loop for ${name}`)]),
    )
    this.#runNs = metrics.counter('runNs', 'time inside vCPUs', 'ns')
    this.#idleNs = metrics.counter('idleNs', 'time asleep with all vCPUs halted', 'ns')
    this.#stolenNs = metrics.counter('stolenNs', 'time that vCPUs were ready while others ran', 'ns')
    this.#timers = metrics.counter('timers', 'timers that expired')
    parts.clock.onEarlierDeadline = (deadlineNs) => {
      // Set by the guest during a slice: ends the slice.
      if (this.#inside >= 0 && deadlineNs < this.#length.endNs) this.#vcpus[this.#inside]!.kick()
    }
  }

  /** Runs guest code until the VM ends. Rejects with errors of devices and strategies. */
  run(): Promise<VmEnd> {
    return new Promise((resolve, reject) => {
      this.#settle = { resolve, reject }
      this.#parts.host.add(this)
      this.#admit('start')
    })
  }

  /** Stops guest code and the guest's time. */
  pause(): void {
    if (this.#isPaused) return
    this.#isPaused = true
    this.#clock.pause()
    this.#block()
  }

  resume(): void {
    if (!this.#isPaused) return
    this.#clock.resume()
    this.#isPaused = false
    this.#admit('resume')
  }

  get paused(): boolean {
    return this.#isPaused
  }

  /** Guest code does not run before this has settled and its consequences have been handled. */
  hold(until: Promise<unknown>): void {
    this.#held.push(until)
  }

  wake(vcpu: number): void {
    this.#wake(vcpu, 'interrupt')
  }
  #wake(vcpu: number, reason: WakeReason): void {
    if (vcpu === this.#inside) {
      this.#vcpus[vcpu]!.kick()
      return
    }
    if (this.#runnable[vcpu] === 1) return
    this.#runnable[vcpu] = 1
    if (!this.#isBlocked) this.#parts.host.wake(this.vcpus[vcpu]!, reason)
  }

  /** Requests attention from outside the guest. */
  nudge(): void {
    if (this.#inside >= 0) this.#vcpus[this.#inside]!.kick()
    this.#parts.host.pace.wake()
  }

  accountSteal(vcpu: number, ns: number): void {
    const wholeNs = Math.floor(ns)
    this.#stolenNs.value += wholeNs
    // What the host does must not change what a deterministic guest computes.
    if (this.#deterministic) return
    this.#parts.accountSteal?.(vcpu, wholeNs)
    this.#stolen[vcpu] = 1
  }

  // Between slices

  get #isBlocked(): boolean {
    return this.#isAway || this.#isPaused
  }
  #block(): void {
    for (const who of this.vcpus) this.#parts.host.sleep(who)
  }
  #admit(reason: WakeReason): void {
    if (this.#isBlocked) return
    for (const who of this.vcpus) if (this.#runnable[who.vcpu] === 1) this.#parts.host.wake(who, reason)
    this.#parts.host.pace.wake()
  }

  prepare(): void {
    try {
      this.#prepare()
    } catch (error) {
      this.#fail(error)
    }
  }
  #prepare(): void {
    const { power } = this.#parts
    if (this.#isAway) return
    if (power.end) return this.#finish(power.end)
    if (this.#isPaused) return
    const stop = performance.now() + TURN_NS / 1e6
    do {
      this.#timers.value += this.#clock.runExpired()
      if (power.end) return this.#finish(power.end)
      if (this.#held.length > 0) return this.#leave(this.#release())
      if (power.resetRequested) return this.#leave(this.#restart())
      if (this.#runnable.includes(1)) return
      if (!this.#deterministic || this.#clock.nextDeadline() === Infinity) return this.#idle()
      this.#clock.skipToDeadline()
    } while (performance.now() < stop)
  }

  #idle(): void {
    if (this.#idleSince !== undefined) return
    this.#idleSince = performance.now()
    if (this.#awaiting > 0 || this.#vcpus.some((vcpu) => vcpu.interruptWindow)) return
    this.#crash(0, 'halted with interrupts disabled: nothing can wake it', this.#vcpus[0]!.readState().rip)
    this.#finish(this.#parts.power.end!)
  }

  get untilDueNs(): number {
    if (this.#isBlocked) return Infinity
    if (this.#deterministic) return this.#runnable.includes(1) || this.#clock.nextDeadline() === Infinity ? Infinity : 0
    return Math.max(0, this.#clock.nextDeadline() - this.#clock.nowNs())
  }

  /** Something that takes its time: the VM's vCPUs wait, others run meanwhile. */
  #leave(work: Promise<void>): void {
    this.#isAway = true
    this.#block()
    work.then(
      () => {
        this.#isAway = false
        this.#admit('resume')
        this.nudge()
      },
      (error: unknown) => this.#fail(error),
    )
  }

  /** Ends it from outside. No guest code runs afterwards. */
  end(): void {
    this.#finish({ state: 'stopped' })
  }

  #finish(end: VmEnd): void {
    this.#parts.host.remove(this)
    this.#settle?.resolve(end)
  }
  #fail(error: unknown): void {
    this.#inside = -1
    this.#parts.host.remove(this)
    this.#settle?.reject(error)
  }

  // A slice

  /** In a deterministic machine the vCPUs take turns, whichever of them the scheduler has chosen: its order would depend on this computer's speed. */
  slice(chosen: number, sliceNs: number): void {
    try {
      this.#slice(this.#deterministic ? this.#nextTurn() : chosen, sliceNs)
    } catch (error) {
      this.#fail(error)
    }
  }
  #nextTurn(): number {
    if (this.#length.isInterrupted) return this.#turn
    do this.#turn = (this.#turn + 1) % this.#vcpus.length
    while (this.#runnable[this.#turn] === 0)
    return this.#turn
  }

  #slice(index: number, sliceNs: number): void {
    const vcpu = this.#vcpus[index]!
    this.#enter(index)
    const budget = this.#length.budget(sliceNs)
    const started = performance.now()
    this.#inside = index
    const exit = vcpu.run(budget)
    this.#inside = -1
    const ended = performance.now()
    const retired = vcpu.instructionsRetired
    const instructions = retired - this.#instructions[index]!
    this.#instructions[index] = retired
    this.#clock.advanceInstructions(instructions)
    const ns = (ended - started) * 1e6
    this.#runNs.value += Math.floor(ns)
    this.#length.ended(instructions, ns, exit.reason === 'memory' || exit.reason === 'budget')
    this.#exits[exit.reason]!.value++
    this.#parts.tracer?.slice(`vcpu${index}`, exit.reason, started, ended)
    switch (exit.reason) {
      case 'budget':
        break
      case 'halt':
        this.#runnable[index] = 0
        this.#parts.host.sleep(this.vcpus[index]!, () => this.#wake(index, 'kick'))
        break
      case 'portIo':
      case 'mmio':
        this.#deferred = exit
        this.#leave(this.#complete())
        break
      case 'memory':
        this.#awaitPage(index, exit.address)
        break
      case 'hypercall':
        vcpu.completeHypercall(UNKNOWN_HYPERCALL)
        break
      case 'shutdown':
        this.#crash(index, 'triple fault', vcpu.readState().rip)
        break
      case 'failure':
        this.#crash(index, exit.message, exit.rip)
        break
    }
  }

  /** The guest has been away from its vCPUs, or from this one. */
  #enter(index: number): void {
    const { onEntry, tracer } = this.#parts
    if (this.#idleSince !== undefined) {
      const ended = performance.now()
      this.#idleNs.value += Math.floor((ended - this.#idleSince) * 1e6)
      tracer?.slice('vcpu0', 'idle', this.#idleSince, ended)
      this.#idleSince = undefined
      if (onEntry) for (let vcpu = 0; vcpu < this.#vcpus.length; vcpu++) onEntry(vcpu)
    } else if (this.#stolen[index] === 1) onEntry?.(index)
    this.#stolen[index] = 0
  }

  /** The vCPU continues when the page is there; others run meanwhile. A deterministic guest stops as a whole, and its time with it. */
  #awaitPage(index: number, address: Gpa): void {
    const fail = (reason: string): void => this.#crash(index, reason, this.#vcpus[index]!.readState().rip)
    const ready = this.#parts.frames.ready(address).then(
      (failure) => void (failure !== undefined && fail(failure)),
      (error: unknown) => fail(error instanceof Error ? error.message : String(error)),
    )
    if (this.#deterministic) return this.hold(ready)
    this.#runnable[index] = 0
    this.#parts.host.sleep(this.vcpus[index]!)
    this.#awaiting++
    void ready.then(() => {
      this.#awaiting--
      this.#wake(index, 'page')
    })
  }

  #crash(vcpu: number, reason: string, rip: bigint): void {
    this.#parts.power.finish({ state: 'crashed', reason, vcpu, rip })
  }

  async #restart(): Promise<void> {
    const { power, quiesce, reset } = this.#parts
    power.resetRequested = false
    await quiesce()
    const end = await reset()
    if (end) return power.finish(end)
    this.#runnable.fill(1)
    this.#length.reset()
    this.#deferred = undefined
  }

  // What takes its time

  async #release(): Promise<void> {
    while (this.#held.length > 0) {
      await Promise.all(this.#held.splice(0))
      // Code that awaited it continues before the event loop's next turn.
      await this.#parts.host.pace.turn()
    }
  }

  /** A device was not ready: tries again after each turn, then completes the instruction. */
  async #complete(): Promise<void> {
    const { host, io, power } = this.#parts
    const exit = this.#deferred!
    while (!retryAccess(io, exit)) {
      await host.pace.turn()
      this.#timers.value += this.#clock.runExpired()
      if (power.end || power.resetRequested) break
    }
    this.#deferred = undefined
  }
}
