/**
 * High-precision event timers: a 64-bit counter of 100 MHz and three comparators. Independent of the interrupt controller.
 * (Intel, "IA-PC HPET Specification", revision 1.0a) @hot
 */

import type { Clock, Device, DeviceContext, InterruptLine, IoHandler, IoSize, Snapshot } from '@nonroot/contracts'
import { Alarm, NEVER, SHORTEST_PERIOD_NS } from './alarm.ts'
import type { GatedLine } from './gated-line.ts'
import { assignState, restoreState, saveState } from './state.ts'

export const HPET_LENGTH = 0x400
const TIMERS = 3
const NS_PER_TICK = 10
/** Intel, legacy replacement, 64-bit counter, three timers, revision 1; as in the ACPI table. */
const CAPABILITIES = 0x8086_a201
const PERIOD_FS = NS_PER_TICK * 1e6
const Register = { capabilities: 0x00, configuration: 0x10, status: 0x20, counter: 0xf0, timers: 0x100 } as const
const TIMER_SIZE = 0x20
const Timer = { configuration: 0, comparator: 8 } as const
const Enable = { counting: 1, legacy: 2 } as const
/** Timer N Configuration and Capabilities. */
const Tn = { level: 0x02, enabled: 0x04, periodic: 0x08, setValue: 0x40, bits32: 0x100, route: 0x3e00 } as const
const TN_CAPABILITIES = 0x30 // periodic, 64 bits
const TN_WRITABLE = Tn.level | Tn.enabled | Tn.periodic | Tn.bits32 | Tn.route
/** Global system interrupts that a timer may be routed to: those of PCI. */
const ROUTES = 0x00ff_0000
const WORD = 2 ** 32

const powerOn = () => ({
  configuration: 0,
  status: 0,
  /** The counter, while it stands; or what it was at `startNs`. */
  counterLow: 0,
  counterHigh: 0,
  startNs: 0,
  timerConfiguration: new Uint32Array(TIMERS),
  comparatorLow: new Uint32Array(TIMERS).fill(WORD - 1),
  comparatorHigh: new Uint32Array(TIMERS).fill(WORD - 1),
  periodLow: new Uint32Array(TIMERS),
  periodHigh: new Uint32Array(TIMERS),
})

const TYPE = 'hpet'

export interface HpetLines {
  /** By global system interrupt. */
  line(gsi: number): InterruptLine
  /** Of the timer and the RTC: legacy replacement takes their place on `timer` and `clock`. */
  readonly replaced: readonly [GatedLine, GatedLine]
  readonly legacy: readonly [timer: InterruptLine, clock: InterruptLine]
}

export class Hpet implements Device, IoHandler {
  readonly #state = powerOn()
  readonly #clock: Clock
  readonly #lines: HpetLines
  readonly #routed = new Map<number, InterruptLine>()
  readonly #alarms: readonly Alarm[]
  /** What a level-triggered timer asserts. */
  readonly #asserted: (InterruptLine | undefined)[] = Array.from({ length: TIMERS }, () => undefined)

  constructor(context: Pick<DeviceContext, 'mmio' | 'clock'>, address: number, lines: HpetLines) {
    this.#clock = context.clock
    this.#lines = lines
    this.#alarms = Array.from({ length: TIMERS }, (_, timer) => new Alarm(context.clock, () => this.#match(timer)))
    context.mmio({ at: address, length: HPET_LENGTH }, this)
  }

  // Registers

  read(offset: number, size: IoSize): number {
    const word = this.#word(offset & ~3)
    if (size === 4) return word
    return (word >>> (8 * (offset & 3))) & (size === 2 ? 0xffff : 0xff)
  }

  /** Both halves of one moment. */
  read64(offset: number): bigint {
    this.#settle()
    const ticks = this.#ticks()
    if (offset === Register.counter) return (BigInt(this.#counterHigh(ticks)) << 32n) | BigInt(this.#counterLow(ticks))
    return (BigInt(this.#word(offset + 4)) << 32n) | BigInt(this.#word(offset))
  }

  #word(offset: number): number {
    const state = this.#state
    switch (offset) {
      case Register.capabilities:
        return CAPABILITIES
      case Register.capabilities + 4:
        return PERIOD_FS
      case Register.configuration:
        return state.configuration
      case Register.status:
        this.#settle()
        return state.status
      case Register.counter:
        return this.#counterLow(this.#ticks())
      case Register.counter + 4:
        return this.#counterHigh(this.#ticks())
    }
    const timer = (offset - Register.timers) >> 5
    if (offset < Register.timers || timer >= TIMERS) return 0
    this.#settle()
    switch (offset & (TIMER_SIZE - 1)) {
      case Timer.configuration:
        return state.timerConfiguration[timer]! | TN_CAPABILITIES
      case Timer.configuration + 4:
        return ROUTES
      case Timer.comparator:
        return state.comparatorLow[timer]!
      case Timer.comparator + 4:
        return this.#is32(timer) ? 0 : state.comparatorHigh[timer]!
    }
    return 0
  }

  write(offset: number, size: IoSize, value: number): void {
    // Registers are written in whole words. ("Register Overview")
    if (size !== 4 || offset & 3) return
    this.#settle()
    const state = this.#state
    switch (offset) {
      case Register.configuration:
        return this.#configure(value)
      case Register.status:
        return this.#acknowledge(value)
      case Register.counter:
        return this.#setCounter(value, this.#counterHigh(this.#ticks()))
      case Register.counter + 4:
        return this.#setCounter(this.#counterLow(this.#ticks()), value)
    }
    const timer = (offset - Register.timers) >> 5
    if (offset < Register.timers || timer >= TIMERS) return
    switch (offset & (TIMER_SIZE - 1)) {
      case Timer.configuration:
        state.timerConfiguration[timer] = (value & (TN_WRITABLE | Tn.setValue)) >>> 0
        this.#drive(timer)
        break
      case Timer.comparator:
        this.#setComparator(timer, state.comparatorLow, state.periodLow, value)
        // A comparator of 32 bits is whole with its low half.
        if (this.#is32(timer)) state.timerConfiguration[timer]! &= ~Tn.setValue
        break
      case Timer.comparator + 4:
        this.#setComparator(timer, state.comparatorHigh, state.periodHigh, value)
        state.timerConfiguration[timer]! &= ~Tn.setValue
        break
    }
    this.#arm(timer)
  }

  /** In periodic mode the value is the period; with TN_VAL_SET_CNF set the accumulator is set by it, too. ("Timer N Comparator Value Register") */
  #setComparator(timer: number, comparators: Uint32Array, periods: Uint32Array, value: number): void {
    const configuration = this.#state.timerConfiguration[timer]!
    const isPeriodic = (configuration & Tn.periodic) !== 0
    if (!isPeriodic || configuration & Tn.setValue) comparators[timer] = value
    if (isPeriodic) periods[timer] = value
  }

  #is32(timer: number): boolean {
    return (this.#state.timerConfiguration[timer]! & Tn.bits32) !== 0
  }

  // Counter

  #ticks(): number {
    const { configuration, startNs } = this.#state
    return configuration & Enable.counting ? Math.floor((this.#clock.nowNs() - startNs) / NS_PER_TICK) : 0
  }

  #counterLow(ticks: number): number {
    return (this.#state.counterLow + ticks) % WORD
  }

  #counterHigh(ticks: number): number {
    return (this.#state.counterHigh + Math.floor((this.#state.counterLow + ticks) / WORD)) % WORD
  }

  #setCounter(low: number, high: number): void {
    const state = this.#state
    state.counterLow = low
    state.counterHigh = high
    state.startNs = this.#clock.nowNs()
    for (let timer = 0; timer < TIMERS; timer++) this.#arm(timer)
  }

  #configure(value: number): void {
    const state = this.#state
    // Stands still from here, or goes on from here.
    const ticks = this.#ticks()
    const [low, high] = [this.#counterLow(ticks), this.#counterHigh(ticks)]
    state.configuration = value & (Enable.counting | Enable.legacy)
    for (const line of this.#lines.replaced) line.open((value & Enable.legacy) === 0)
    for (let timer = 0; timer < TIMERS; timer++) this.#drive(timer)
    this.#setCounter(low, high)
  }

  // Matches

  #arm(timer: number): void {
    const deadline = this.#deadline(timer)
    // Short periods are counted exactly and delivered as often as a guest can take them.
    const soonest = this.#clock.nowNs() + (this.#isPeriodic(timer) ? SHORTEST_PERIOD_NS : 0)
    this.#alarms[timer]!.set(deadline === NEVER ? NEVER : Math.max(deadline, soonest))
  }

  #isPeriodic(timer: number): boolean {
    const { timerConfiguration, periodLow, periodHigh } = this.#state
    return (timerConfiguration[timer]! & Tn.periodic) !== 0 && (periodLow[timer]! | periodHigh[timer]!) !== 0
  }

  /** When the counter next equals the comparator. */
  #deadline(timer: number): number {
    const state = this.#state
    if (!(state.configuration & Enable.counting)) return NEVER
    const ticks = this.#ticks()
    let ahead = state.comparatorLow[timer]! - this.#counterLow(ticks)
    if (this.#is32(timer)) {
      if (ahead <= 0) ahead += WORD
    } else {
      let high = state.comparatorHigh[timer]! - this.#counterHigh(ticks)
      if (high < 0 || (high === 0 && ahead <= 0)) high += WORD
      ahead += high * WORD
    }
    const deadline = state.startNs + (ticks + ahead) * NS_PER_TICK
    return deadline <= Number.MAX_SAFE_INTEGER ? deadline : NEVER
  }

  /** What is due comes before anything is looked at or changed. */
  #settle(): void {
    const now = this.#clock.nowNs()
    for (let timer = 0; timer < TIMERS; timer++) {
      const { deadlineNs } = this.#alarms[timer]!
      if (deadlineNs === NEVER || deadlineNs > now) continue
      this.#match(timer)
    }
  }

  #match(timer: number): void {
    const state = this.#state
    const configuration = state.timerConfiguration[timer]!
    if (this.#isPeriodic(timer)) this.#advance(timer)
    this.#arm(timer)
    if (configuration & Tn.level) {
      state.status |= 1 << timer
      this.#drive(timer)
    } else if (configuration & Tn.enabled) this.#line(timer)?.pulse()
  }

  /** The accumulator moves on by whole periods, past the counter. */
  #advance(timer: number): void {
    const state = this.#state
    const ticks = this.#ticks()
    const is32 = this.#is32(timer)
    const period = state.periodLow[timer]! + (is32 ? 0 : state.periodHigh[timer]! * WORD)
    let behind = this.#counterLow(ticks) - state.comparatorLow[timer]!
    if (is32) behind = (behind + WORD) % WORD
    else behind += (this.#counterHigh(ticks) - state.comparatorHigh[timer]!) * WORD
    const steps = Math.floor(Math.max(0, behind) / Math.max(1, period)) + 1
    const low = state.comparatorLow[timer]! + steps * Math.max(1, period)
    state.comparatorLow[timer] = low % WORD
    if (!is32) state.comparatorHigh[timer] = (state.comparatorHigh[timer]! + Math.floor(low / WORD)) % WORD
  }

  #line(timer: number): InterruptLine | undefined {
    const { configuration, timerConfiguration } = this.#state
    if (configuration & Enable.legacy && timer < 2) return this.#lines.legacy[timer]
    const gsi = (timerConfiguration[timer]! & Tn.route) >> 9
    if (!(ROUTES & (1 << gsi))) return undefined
    let line = this.#routed.get(gsi)
    if (!line) this.#routed.set(gsi, (line = this.#lines.line(gsi)))
    return line
  }

  /** Level-triggered, the interrupt is active as long as the status bit is set and the timer is enabled. ("Timer N Configuration and Capabilities Register") */
  #drive(timer: number): void {
    const { status, timerConfiguration } = this.#state
    const isLevel = (timerConfiguration[timer]! & (Tn.level | Tn.enabled)) === (Tn.level | Tn.enabled)
    const line = isLevel && status & (1 << timer) ? this.#line(timer) : undefined
    const before = this.#asserted[timer]
    if (line === before) return
    this.#asserted[timer] = line
    before?.lower()
    line?.raise()
  }

  #acknowledge(value: number): void {
    this.#state.status &= ~value
    for (let timer = 0; timer < TIMERS; timer++) this.#drive(timer)
  }

  // All of it

  reset(): void {
    assignState(this.#state, powerOn())
    this.#follow()
  }

  save(): Snapshot {
    this.#settle()
    return saveState(TYPE, 1, this.#state)
  }

  restore(snapshot: Snapshot): void {
    restoreState(snapshot, TYPE, 1, this.#state)
    this.#follow()
  }

  #follow(): void {
    for (const line of this.#lines.replaced) line.open((this.#state.configuration & Enable.legacy) === 0)
    for (let timer = 0; timer < TIMERS; timer++) {
      this.#arm(timer)
      this.#drive(timer)
    }
  }
}
