/** Where a run loop tells what it did when. For pictures of a run; absent, it costs nothing. */

export interface Tracer {
  /** Something took from `startMs` to `endMs` (monotonic milliseconds) on a track: `vcpu0` ran until `halt`. */
  slice(track: string, name: string, startMs: number, endMs: number): void
}
