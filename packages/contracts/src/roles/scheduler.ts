/** Which vCPU runs next, and for how long. */

import { token } from '../base/token.ts'

/** A vCPU to schedule. Made by the kernel, one per vCPU. */
export interface Schedulable {
  readonly vm: string
  readonly vcpu: number
  /** Relative claim, default 1. */
  readonly weight: number
}

/** Run `who` for at most `sliceNs`. */
export interface Slice {
  readonly who: Schedulable
  readonly sliceNs: number
}

/** One per host. The run loop calls `next`, runs the slice, and reports by `ran`. Does not allocate once all have been added. */
export interface Scheduler {
  add(who: Schedulable): void
  remove(who: Schedulable): void
  /** It has something to do (again): an event came, or it was added. */
  wake(who: Schedulable): void
  /** It halted: leave it out until `wake`. */
  sleep(who: Schedulable): void
  /** The next slice, or undefined when all sleep. The object may be reused. */
  next(nowNs: number): Slice | undefined
  ran(who: Schedulable, tookNs: number): void
}
export const Scheduler = token<Scheduler>('Scheduler')
