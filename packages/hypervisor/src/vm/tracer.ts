/** Records what a run loop did, and when, for drawings of a run. Costs nothing if absent. */

import type { GuestMemory, Vcpu } from '@nonroot/contracts'

/** What a tracer may read between slices, but not change. */
export interface TracedVm {
  readonly vcpus: readonly Vcpu[]
  readonly guestMemory: GuestMemory
}

export interface Tracer {
  /** Called when the VM has been created, before its first slice. */
  attach?(vm: TracedVm): void
  /** An activity from `startMs` to `endMs` (monotonic milliseconds) on a track: `vcpu0` ran until `halt`. */
  slice(track: string, name: string, startMs: number, endMs: number): void
  /** The same, for what happens within slices: exits, hypercalls, accesses to devices, interrupts. Absent: nothing of it is recorded. */
  span?(track: string, name: string, startMs: number, endMs: number): void
}
