/** Which vCPU runs next on a processor of the host, and for how long. */

import { token } from '../base/token.ts'

/** A vCPU to schedule. Created by the kernel, one per vCPU. */
export interface Schedulable {
  readonly vm: string
  readonly vcpu: number
  /** Relative claim. The kernel's default is 1. */
  readonly weight: number
  /** The largest share of one processor's time that it may use, above 0, at most 1. Undefined: no limit. */
  readonly cap?: number | undefined
  /** Processors that may run it. Undefined: all. */
  readonly affinity?: ReadonlySet<number> | undefined
}

/** Why a vCPU became ready: it was started, an interrupt or a page that it waited for arrived, another thread kicked it, or its VM was resumed. */
export type WakeReason = 'start' | 'interrupt' | 'page' | 'kick' | 'resume'

/** Run `who` for at most `sliceNs`. */
export interface Slice {
  readonly who: Schedulable
  readonly sliceNs: number
}

/**
 * One per host. Each processor of the host (a thread that runs guest code, numbered from 0) calls `next`, runs the slice, or less of it, and reports it with
 * `ran`. Times are nanoseconds of one monotonic clock. Does not allocate once all vCPUs have been added.
 */
export interface Scheduler {
  /** Added asleep. */
  add(who: Schedulable): void
  /** Also while it runs. Unknown ones are ignored, here and below. */
  remove(who: Schedulable): void
  /** It has something to do. May be called for one that is awake. */
  wake(who: Schedulable, reason: WakeReason, nowNs: number): void
  /** It halted, or its VM may not run: leave it out until `wake`. */
  sleep(who: Schedulable, nowNs: number): void
  /** The next slice on this processor, or undefined if none may run there now. The object may be reused. */
  next(processor: number, nowNs: number): Slice | undefined
  ran(processor: number, who: Schedulable, tookNs: number, nowNs: number): void
  /** After `next` returned undefined: when to ask again if nothing wakes before. Infinity: not at all. */
  retryAtNs?(processor: number): number
}
export const Scheduler = token<Scheduler>('Scheduler')
