/** Getting frames back from guests: ballooning, sharing, swapping, and who is asked when. */

import type { Device } from '../devices/device.ts'
import type { GuestFrames } from '../memory/guest-frames.ts'
import type { HostMemory } from '../memory/host-memory.ts'
import type { Metrics } from '../base/metrics.ts'
import { token } from '../base/token.ts'

/** One VM as a policy sees it. Frames everywhere. */
export interface ReclaimSubject {
  readonly name: string
  readonly frames: GuestFrames
  /** Never taken below this. */
  readonly minimumFrames: number
  readonly maximumFrames: number
  /** Relative claim under pressure. */
  readonly shares: number
  /** The VM's devices by name: a balloon policy talks to its balloon. */
  readonly devices: ReadonlyMap<string, Device>
}

export interface ReclaimPressure {
  readonly wantedFrames: number
  readonly freeFrames: number
  readonly totalFrames: number
}

/** Honest: what came back, and why not more. */
export interface ReclaimReport {
  readonly reclaimedFrames: number
  readonly reason?: string
}

/** One per host and entry of `stack.reclaim`, asked in order until enough is free. */
export interface ReclaimPolicy {
  attach(host: HostMemory, metrics: Metrics): void
  /** A VM came or went. */
  addSubject(subject: ReclaimSubject): void
  removeSubject(subject: ReclaimSubject): void
  /** Frames are short. May take time (a balloon waits for its guest); the run loop goes on meanwhile. */
  onPressure(pressure: ReclaimPressure): Promise<ReclaimReport>
  /** Regularly, about once a second: look at use, merge pages, age. Bounded: at most about a millisecond. */
  sample?(nowNs: number): void
  dispose?(): void
}
export const ReclaimPolicy = token<ReclaimPolicy>('ReclaimPolicy')
