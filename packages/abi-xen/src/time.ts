/** A vCPU's clock and its timers. (Xen, "public/xen.h", struct vcpu_time_info; "public/vcpu.h") */

import type { Clock, Timer } from '@nonroot/contracts'
import { SHARED, TIME } from './facts.ts'

const NS = 1_000_000_000n

/**
 * The TSC is a straight line over the clock's nanoseconds, so that one writing holds for ever. `version` is odd while the rest is being written.
 */
export function writeTimeInfo(view: DataView, at: number, clock: Clock): void {
  const frequency = BigInt(clock.tscHz)
  let shift = 0n
  // nanoseconds = ((ticks << shift) * multiplier) >> 32, with a multiplier of 32 significant bits.
  while (((NS << 32n) / frequency) >> shift >= 1n << 32n) shift++
  while (((NS << 32n) << -shift) / frequency < 1n << 31n) shift--
  const multiplier = shift > 0n ? ((NS << 32n) / frequency) >> shift : ((NS << 32n) << -shift) / frequency
  const version = view.getUint32(at + TIME.version, true)
  view.setUint32(at + TIME.version, version + 1, true)
  view.setBigUint64(at + TIME.tsc, clock.tsc(), true)
  view.setBigUint64(at + TIME.system, BigInt(Math.floor(clock.nowNs())), true)
  view.setUint32(at + TIME.multiplier, Number(multiplier & 0xffff_ffffn), true)
  view.setInt8(at + TIME.shift, Number(shift))
  view.setUint8(at + TIME.flags, TIME.stable)
  view.setUint32(at + TIME.version, version + 2, true)
}

/** What the wall clock showed at system time 0. */
export function writeWallClock(view: DataView, shared: number, clock: Clock): void {
  const start = BigInt(Math.floor(clock.wallClockMs())) * 1_000_000n - BigInt(Math.floor(clock.nowNs()))
  const version = view.getUint32(shared + SHARED.wallClockVersion, true)
  view.setUint32(shared + SHARED.wallClockVersion, version + 1, true)
  view.setUint32(shared + SHARED.seconds, Number((start / NS) & 0xffff_ffffn), true)
  view.setUint32(shared + SHARED.nanoseconds, Number(start % NS), true)
  view.setUint32(shared + SHARED.secondsHigh, Number((start / NS) >> 32n), true)
  view.setUint32(shared + SHARED.wallClockVersion, version + 2, true)
}

/** The least that a periodic timer may ask for. */
const LEAST_PERIOD = 1_000_000

/** A single shot and a period, each a virtual interrupt; and what wakes a poll. */
export class VcpuTimers {
  readonly #clock: Clock
  readonly #fire: () => void
  #single: Timer | undefined
  #periodic: Timer | undefined
  #poll: Timer | undefined

  constructor(clock: Clock, fire: () => void) {
    this.#clock = clock
    this.#fire = fire
  }

  /** At an absolute time; one that is past fires at once. */
  setSingle(deadline: number): void {
    this.cancelSingle()
    if (deadline <= this.#clock.nowNs()) this.#fire()
    else this.#single = this.#clock.setTimer(deadline, this.#fire)
  }
  cancelSingle(): void {
    if (this.#single) this.#clock.cancel(this.#single)
    this.#single = undefined
  }

  /** False: too short. */
  startPeriodic(period: number): boolean {
    if (period < LEAST_PERIOD) return false
    this.cancelPeriodic()
    const next = (): void => {
      this.#periodic = this.#clock.setTimer(this.#clock.nowNs() + period, () => {
        next()
        this.#fire()
      })
    }
    next()
    return true
  }
  cancelPeriodic(): void {
    if (this.#periodic) this.#clock.cancel(this.#periodic)
    this.#periodic = undefined
  }

  wakeAt(deadline: number, wake: () => void): void {
    if (this.#poll) this.#clock.cancel(this.#poll)
    this.#poll = this.#clock.setTimer(deadline, wake)
  }

  cancel(): void {
    this.cancelSingle()
    this.cancelPeriodic()
    if (this.#poll) this.#clock.cancel(this.#poll)
    this.#poll = undefined
  }
}
