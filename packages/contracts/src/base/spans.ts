/** What a vCPU does within its runs, for drawings of a run. Only traced VMs record it. */
export interface Spans {
  /** An activity from `startMs` to `endMs` of the thread's `performance.now()`. It lies within those that were begun before it and have not ended. */
  span(name: string, startMs: number, endMs: number): void
}
