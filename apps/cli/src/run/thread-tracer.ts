/** Collects events of the run loop and samples of counters, and sends them in batches. */

import type { MetricSample } from '@nonroot/contracts'
import type { Tracer } from '@nonroot/hypervisor'
import type { TraceEvents } from './protocol.ts'

const BATCH = 4096
const FIELDS = 4
const SAMPLE_EVERY_MS = 10
/** Samples take at most one in so many parts of the time. */
const SAMPLE_SHARE = 25

export interface ThreadTracer extends Tracer {
  flush(): void
}

/** Tells each of them. */
export const both = (tracers: readonly Tracer[]): Tracer => ({
  attach: (vm) => tracers.forEach((one) => one.attach?.(vm)),
  slice: (track, name, startMs, endMs) => tracers.forEach((one) => one.slice(track, name, startMs, endMs)),
  span: (track, name, startMs, endMs) => tracers.forEach((one) => one.span?.(track, name, startMs, endMs)),
})

export function createThreadTracer(
  samples: () => readonly MetricSample[],
  send: (events: TraceEvents) => void,
): ThreadTracer {
  const numbers = new Map<string, number>()
  let names: string[] = []
  const slices = new Float64Array(BATCH * FIELDS)
  let filled = 0
  let counters: number[] = []
  let nextSample = 0
  const last = new Map<string, number>()
  const number = (name: string): number => {
    const known = numbers.get(name)
    if (known !== undefined) return known
    numbers.set(name, numbers.size)
    names.push(name)
    return numbers.size - 1
  }
  const sample = (now: number): void => {
    const started = performance.now()
    for (const { name, kind, value, count } of samples()) {
      const reading = kind === 'histogram' ? count! : value
      const before = last.get(name)
      if (reading === before) continue
      last.set(name, reading)
      // A counter shows how much it went up; the first reading says nothing about when.
      if (before !== undefined || kind === 'gauge')
        counters.push(number(name), now, kind === 'gauge' ? reading : reading - (before ?? 0))
    }
    const ended = performance.now()
    nextSample = ended + Math.max(SAMPLE_EVERY_MS, SAMPLE_SHARE * (ended - started))
  }
  const flush = (): void => {
    if (filled === 0 && counters.length === 0) return
    send({ names, slices: slices.slice(0, filled), counters: Float64Array.from(counters) })
    names = []
    filled = 0
    counters = []
  }
  const record = (track: string, name: string, startMs: number, endMs: number): void => {
    slices[filled++] = number(track)
    slices[filled++] = number(name)
    slices[filled++] = startMs
    slices[filled++] = endMs
    if (filled === slices.length) flush()
  }
  return {
    slice(track, name, startMs, endMs) {
      record(track, name, startMs, endMs)
      if (endMs >= nextSample) sample(endMs)
    },
    span: record,
    flush,
  }
}
