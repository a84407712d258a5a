/** A local APIC's timer: one-shot and periodic countdown, and TSC deadline. Of the LVT entry it uses only the mode. (SDM Vol. 3A, "APIC Timer") @hot */

import type { Clock } from '@nonroot/contracts'
import { Alarm, NEVER, nextPeriod } from '../alarm.ts'
import { assignState } from '../state.ts'
import { TimerMode } from './registers.ts'

const STOPPED = -1

const powerOn = () => ({
  mode: TimerMode.oneShot as number,
  initialCount: 0,
  divide: 0,
  /** When counting down from the initial count began, or `STOPPED`: the count stays at zero. */
  startNs: STOPPED as number,
  tscDeadline: 0n,
})

export class ApicTimer {
  readonly state = powerOn()
  readonly #clock: Clock
  readonly #alarm: Alarm
  readonly #fire: () => void

  constructor(clock: Clock, fire: () => void) {
    this.#clock = clock
    this.#fire = fire
    this.#alarm = new Alarm(clock, () => this.#expired())
  }

  get deadlineNs(): number {
    return this.#alarm.deadlineNs
  }

  setMode(mode: number): void {
    const state = this.state
    if (mode === state.mode) return
    if (mode === TimerMode.tscDeadline || state.mode === TimerMode.tscDeadline) {
      // Disarms. (SDM Vol. 3A, "TSC-Deadline Mode")
      this.#alarm.set(NEVER)
      state.initialCount = 0
      state.startNs = STOPPED
      state.tscDeadline = 0n
    } else if (state.startNs !== STOPPED) this.#goOn()
    state.mode = mode
  }

  /** The count goes on from where it is: no mode but the next reload, or its absence, follows from the change. A count that has ended stays at zero. */
  #goOn(): void {
    const state = this.state
    const now = this.#clock.nowNs()
    const isDue = this.#alarm.deadlineNs !== NEVER && this.#alarm.deadlineNs <= now
    if (isDue) this.#fire()
    const whole = state.initialCount * this.#divisor()
    const elapsed = now - state.startNs
    if (state.mode === TimerMode.periodic) state.startNs += Math.floor(elapsed / whole) * whole
    else if (elapsed >= whole) state.startNs = STOPPED
    this.#armCount()
  }

  // Counting

  setInitialCount(count: number): void {
    const state = this.state
    if (state.mode === TimerMode.tscDeadline) return
    state.initialCount = count
    state.startNs = count === 0 ? STOPPED : this.#clock.nowNs()
    this.#armCount()
  }

  /** What is left goes on at the new rate. */
  setDivide(divide: number): void {
    const state = this.state
    const current = this.currentCount()
    state.divide = divide
    if (current === 0) return
    state.startNs = this.#clock.nowNs() - (state.initialCount - current) * this.#divisor()
    this.#armCount()
  }

  currentCount(): number {
    const { initialCount, startNs, mode } = this.state
    if (startNs === STOPPED) return 0
    const elapsed = Math.floor((this.#clock.nowNs() - startNs) / this.#divisor())
    if (mode === TimerMode.periodic) return initialCount - (elapsed % initialCount)
    return Math.max(0, initialCount - elapsed)
  }

  #divisor(): number {
    const { divide } = this.state
    const code = (divide & 3) | ((divide >> 1) & 4)
    return code === 7 ? 1 : 2 << code
  }

  #armCount(): void {
    const { initialCount, startNs } = this.state
    this.#alarm.set(startNs === STOPPED ? NEVER : startNs + initialCount * this.#divisor())
  }

  // TSC deadline

  setTscDeadline(deadline: bigint): void {
    if (this.state.mode !== TimerMode.tscDeadline) return
    this.state.tscDeadline = deadline
    this.#alarm.set(NEVER)
    if (deadline === 0n) return
    const ticks = Number(deadline - this.#clock.tsc())
    if (ticks <= 0) return this.#expired()
    const deadlineNs = this.#clock.nowNs() + Math.ceil((ticks / this.#clock.tscHz) * 1e9)
    // Beyond what the clock can count there is no deadline.
    if (deadlineNs <= Number.MAX_SAFE_INTEGER) this.#alarm.set(deadlineNs)
  }

  #expired(): void {
    const state = this.state
    if (state.mode === TimerMode.tscDeadline) state.tscDeadline = 0n
    else if (state.mode !== TimerMode.periodic) state.startNs = STOPPED
    else {
      const now = this.#clock.nowNs()
      const periodNs = state.initialCount * this.#divisor()
      const periods = Math.floor((now - state.startNs) / periodNs)
      this.#alarm.set(nextPeriod(state.startNs + periods * periodNs, periodNs, now))
    }
    this.#fire()
  }

  reset(): void {
    this.#alarm.set(NEVER)
    assignState(this.state, powerOn())
  }

  /** After `state` was restored. */
  resume(deadlineNs: number): void {
    this.#alarm.set(deadlineNs)
  }
}
