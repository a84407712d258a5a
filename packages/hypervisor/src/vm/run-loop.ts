/** The loop around a VM's vCPUs: time, slices, neutral exits, sleep. Independent of devices and CPU modes. @hot */

import { IO_DEFERRED, IO_DEFERRED_64 } from '@nonroot/contracts'
import type {
  Counter,
  Gpa,
  GuestFrames,
  InterruptSink,
  IoBus,
  IoSize,
  Metrics,
  MmioExit,
  PortIoExit,
  Vcpu,
  VmEnd,
} from '@nonroot/contracts'
import type { KernelClock } from '../time/clock.ts'
import type { Pace } from './pace.ts'
import type { PowerSwitch } from './power.ts'
import type { Tracer } from './tracer.ts'

/** Maximum delay of the event loop, and so of input and completed requests. */
const TURN_MS = 1
const TURN_NS = TURN_MS * 1e6
/** Slices of a deterministic clock do not depend on the host's speed. */
const DETERMINISTIC_SLICE = 100_000
const LEAST_BUDGET = 1000
const MOST_BUDGET = 50_000_000
/** Assumed instructions per nanosecond before the first measurement. */
const FIRST_RATE = 0.05
/** Result of an unknown hypercall: minus one. */
const UNKNOWN_HYPERCALL = 0xffff_ffff_ffff_ffffn

export interface RunLoopParts {
  readonly vcpus: readonly Vcpu[]
  readonly clock: KernelClock
  readonly io: IoBus
  readonly frames: Pick<GuestFrames, 'ready'>
  readonly power: PowerSwitch
  readonly pace: Pace
  readonly metrics: Metrics
  readonly tracer: Tracer | undefined
  /** Called before a vCPU enters the guest after a pause or halt (`GuestAbi.onEntry`). */
  readonly onEntry: ((vcpu: number) => void) | undefined
  /** Devices complete requests in flight: memory lent to them belongs to the next guest after a reset. */
  readonly quiesce: () => Promise<void>
  /** Resets the machine. Returns how the VM ends if it must not restart. */
  readonly reset: () => Promise<VmEnd | undefined>
}

/** Why a burst of slices ended. */
type Burst = 'turn' | 'idle' | 'deferred' | 'reset' | 'held'

export class RunLoop implements InterruptSink {
  readonly #parts: RunLoopParts
  readonly #vcpus: readonly Vcpu[]
  readonly #clock: KernelClock
  readonly #deterministic: boolean
  /** 1: runnable. 0: halted. */
  readonly #runnable: Uint8Array
  readonly #instructions: Float64Array
  /** Index of the vCPU inside `run`, or -1. */
  #inside = -1
  #sliceEndNs = 0
  #rate = FIRST_RATE
  #next = 0
  #deferred: PortIoExit | MmioExit | undefined
  /** Work for which the guest waits, without guest time passing. */
  #held: Promise<unknown>[] = []
  #resumed: Promise<void> | undefined
  #resume: (() => void) | undefined
  /** vCPUs that wait for a page of memory. */
  #awaiting = 0
  readonly #exits: Readonly<Record<string, Counter>>
  readonly #runNs: Counter
  readonly #idleNs: Counter
  readonly #timers: Counter

  constructor(parts: RunLoopParts) {
    this.#parts = parts
    this.#vcpus = parts.vcpus
    this.#clock = parts.clock
    this.#deterministic = parts.clock.kind === 'deterministic'
    this.#runnable = new Uint8Array(parts.vcpus.length).fill(1)
    this.#instructions = Float64Array.from(parts.vcpus, (vcpu) => vcpu.instructionsRetired)
    const { metrics } = parts
    const returns = metrics.scope('returns')
    const names = ['portIo', 'mmio', 'hypercall', 'halt', 'memory', 'shutdown', 'budget', 'failure']
    this.#exits = Object.fromEntries(
      names.map((name) => [name, returns.counter(name, `returns of vCPUs to the run loop for ${name}`)]),
    )
    this.#runNs = metrics.counter('runNs', 'time inside vCPUs', 'ns')
    this.#idleNs = metrics.counter('idleNs', 'time asleep with all vCPUs halted', 'ns')
    this.#timers = metrics.counter('timers', 'timers that expired')
    parts.clock.onEarlierDeadline = (deadlineNs) => {
      // Set by the guest during a slice: ends the slice.
      if (this.#inside >= 0 && deadlineNs < this.#sliceEndNs) this.#vcpus[this.#inside]!.kick()
    }
  }

  /** Runs guest code until the VM ends. Rejects with errors of devices and strategies. */
  async run(): Promise<VmEnd> {
    const { power, pace } = this.#parts
    for (;;) {
      if (this.#resumed) await this.#resumed
      const burst = this.#burst()
      if (power.end) return power.end
      if (burst === 'idle') await this.#sleep()
      else if (burst === 'deferred') await this.#complete()
      else if (burst === 'reset') await this.#restart()
      else if (burst === 'held') await this.#release()
      else await pace.turn()
      if (power.end) return power.end
    }
  }

  /** Stops at the next turn of the event loop, with the guest's time. */
  pause(): void {
    if (this.#resumed) return
    this.#resumed = new Promise((resolve) => (this.#resume = resolve))
    this.#clock.pause()
    this.#parts.pace.wake()
  }

  resume(): void {
    this.#clock.resume()
    this.#resumed = undefined
    this.#resume?.()
    this.#resume = undefined
  }

  /** Guest code does not run before this has settled and its consequences have been handled. */
  hold(until: Promise<unknown>): void {
    this.#held.push(until)
  }

  get paused(): boolean {
    return this.#resumed !== undefined
  }

  wake(vcpu: number): void {
    if (vcpu === this.#inside) {
      this.#vcpus[vcpu]!.kick()
      return
    }
    if (this.#runnable[vcpu] === 1) return
    this.#runnable[vcpu] = 1
    this.#parts.pace.wake()
  }

  /** Requests the loop's attention from outside the guest. */
  nudge(): void {
    if (this.#inside >= 0) this.#vcpus[this.#inside]!.kick()
    this.#parts.pace.wake()
  }

  // Slices until the event loop's next turn

  #burst(): Burst {
    const { power } = this.#parts
    const stop = performance.now() + TURN_MS
    let now = 0
    do {
      this.#timers.value += this.#clock.runExpired()
      if (power.end) return 'turn'
      if (this.#held.length > 0) return 'held'
      if (power.resetRequested) return 'reset'
      const vcpu = this.#pick()
      if (vcpu < 0) {
        if (!this.#deterministic || this.#clock.nextDeadline() === Infinity) return 'idle'
        this.#clock.skipToDeadline()
        now = performance.now()
        continue
      }
      now = this.#slice(vcpu)
      if (this.#deferred) return 'deferred'
      if (power.end) return 'turn'
    } while (now < stop)
    return 'turn'
  }

  /** In turns. -1: all are halted. */
  #pick(): number {
    const count = this.#vcpus.length
    for (let step = 0; step < count; step++) {
      const index = this.#next < count ? this.#next : 0
      this.#next = index + 1
      if (this.#runnable[index] === 1) return index
    }
    return -1
  }

  #slice(index: number): number {
    const vcpu = this.#vcpus[index]!
    const budget = this.#budget()
    const started = performance.now()
    this.#inside = index
    const exit = vcpu.run(budget)
    this.#inside = -1
    const ended = performance.now()
    const retired = vcpu.instructionsRetired
    const instructions = retired - this.#instructions[index]!
    this.#instructions[index] = retired
    this.#clock.advanceInstructions(instructions)
    this.#measure(instructions, (ended - started) * 1e6)
    this.#exits[exit.reason]!.value++
    this.#parts.tracer?.slice(`vcpu${index}`, exit.reason, started, ended)
    switch (exit.reason) {
      case 'budget':
        break
      case 'halt':
        this.#runnable[index] = 0
        break
      case 'portIo':
      case 'mmio':
        this.#deferred = exit
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
    return ended
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
    this.#awaiting++
    void ready.then(() => {
      this.#awaiting--
      this.wake(index)
    })
  }

  #budget(): number {
    const clock = this.#clock
    if (this.#deterministic) {
      const budget = Math.min(DETERMINISTIC_SLICE, Math.max(1, clock.instructionsToDeadline()))
      this.#sliceEndNs = Math.min(clock.nextDeadline(), Infinity)
      return budget
    }
    const now = clock.nowNs()
    this.#sliceEndNs = Math.min(clock.nextDeadline(), now + TURN_NS)
    return Math.min(Math.max(Math.floor((this.#sliceEndNs - now) * this.#rate), LEAST_BUDGET), MOST_BUDGET)
  }

  /** Measures the guest's speed, so that slices have the intended length. */
  #measure(instructions: number, ns: number): void {
    this.#runNs.value += Math.floor(ns)
    // Too short to measure.
    if (ns < TURN_NS / 20) return
    this.#rate += (instructions / ns - this.#rate) / 4
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
    this.#deferred = undefined
  }

  // Between bursts

  async #sleep(): Promise<void> {
    const { pace, tracer } = this.#parts
    if (this.#awaiting === 0 && !this.#vcpus.some((vcpu) => vcpu.interruptWindow)) {
      const [vcpu] = this.#vcpus
      this.#crash(0, 'halted with interrupts disabled: nothing can wake it', vcpu!.readState().rip)
      return
    }
    const started = performance.now()
    const deadline = this.#clock.nextDeadline()
    await pace.sleep(Math.max(0, deadline - this.#clock.nowNs()))
    const ended = performance.now()
    this.#idleNs.value += Math.floor((ended - started) * 1e6)
    tracer?.slice('vcpu0', 'idle', started, ended)
    const { onEntry } = this.#parts
    if (onEntry) for (let index = 0; index < this.#vcpus.length; index++) onEntry(index)
  }

  async #release(): Promise<void> {
    while (this.#held.length > 0) {
      await Promise.all(this.#held.splice(0))
      // Code that awaited it continues before the event loop's next turn.
      await this.#parts.pace.turn()
    }
  }

  /** A device was not ready: tries again after each turn, then completes the instruction. */
  async #complete(): Promise<void> {
    const { pace, io, power } = this.#parts
    const exit = this.#deferred!
    while (!(exit.reason === 'portIo' ? retryPort(io, exit) : retryMmio(io, exit))) {
      await pace.turn()
      this.#timers.value += this.#clock.runExpired()
      if (power.end || power.resetRequested) break
    }
    this.#deferred = undefined
  }
}

function retryPort(io: IoBus, exit: PortIoExit): boolean {
  if (exit.write) return io.writePort(exit.port, exit.size, exit.data)
  const value = io.readPort(exit.port, exit.size)
  if (value === IO_DEFERRED) return false
  exit.data = value
  return true
}

function retryMmio(io: IoBus, exit: MmioExit): boolean {
  if (exit.size === 8) {
    if (exit.write) return io.writeMmio64(exit.address, (BigInt(exit.dataHigh) << 32n) | BigInt(exit.data))
    const value = io.readMmio64(exit.address)
    if (value === IO_DEFERRED_64) return false
    exit.data = Number(value & 0xffff_ffffn)
    exit.dataHigh = Number(value >> 32n)
    return true
  }
  const size: IoSize = exit.size
  if (exit.write) return io.writeMmio(exit.address, size, exit.data)
  const value = io.readMmio(exit.address, size)
  if (value === IO_DEFERRED) return false
  exit.data = value
  return true
}
