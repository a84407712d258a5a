/** Guest time. Two implementations in the kernel: wall, and deterministic (derived from retired instructions). */

import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'

/** A pending call. Opaque; pass it to `cancel`. */
export interface Timer {
  readonly deadlineNs: number
}

/**
 * One per VM. Every timer and the TSC derive from it, so runs with a deterministic clock repeat exactly.
 *
 * Nanoseconds are whole numbers in a JS number: exact for 104 days of guest time (2^53 ns), which is also how long one
 * run may last. The clock stands still while the VM is paused.
 */
export interface Clock extends Saveable {
  readonly kind: 'wall' | 'deterministic'
  /** Guest nanoseconds since the VM was created. Never decreases. */
  nowNs(): number
  /** Milliseconds since 1970 (UTC) as the guest's real-time clock should show them. Deterministic: starts at a fixed date. */
  wallClockMs(): number

  /** Frequency of the guest's TSC in Hz, a multiple of 1 MHz below 2^32. */
  readonly tscHz: number
  /** `nowNs` as TSC ticks. */
  tsc(): bigint

  /** Calls `callback` once `nowNs() >= deadlineNs`, from `runExpired`. A deadline in the past expires at the next `runExpired`. */
  setTimer(deadlineNs: number, callback: () => void): Timer
  /** No effect on a timer that has expired or was cancelled. */
  cancel(timer: Timer): void
  /** Earliest deadline, or Infinity. The run loop limits its budget and its sleep by it. */
  nextDeadline(): number
  /**
   * Calls all expired timers, by deadline, then in the order in which they were set, including timers set by these calls. Called only by the run
   * loop, between VM exits. Returns how many were called.
   */
  runExpired(): number

  /** The run loop reports retired instructions. They advance a deterministic clock; a wall clock only counts them. */
  advanceInstructions(count: number): void
  /** All vCPUs are halted: skip to the next deadline. Deterministic only; a wall clock ignores it (the loop sleeps). */
  skipToDeadline(): void
  /** Instructions until the next deadline at the clock's rate, or Infinity. Wall clock: Infinity. */
  instructionsToDeadline(): number
}
export const Clock = token<Clock>('Clock')
