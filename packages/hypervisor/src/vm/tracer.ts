/** Where a run loop tells what it did when. For pictures of a run; absent, it costs nothing. */

import type { GuestMemory, Vcpu } from '@nonroot/contracts'

/** What a tracer may look at between slices, and not change. */
export interface TracedVm {
  readonly vcpus: readonly Vcpu[]
  readonly guestMemory: GuestMemory
}

export interface Tracer {
  /** The VM is made; before its first slice. */
  attach?(vm: TracedVm): void
  /** Something took from `startMs` to `endMs` (monotonic milliseconds) on a track: `vcpu0` ran until `halt`. */
  slice(track: string, name: string, startMs: number, endMs: number): void
}
