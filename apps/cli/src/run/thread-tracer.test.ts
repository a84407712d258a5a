/** Samples of counters in a trace cost a small share of the time, however much one costs. */

import { expect, it, vi } from 'vitest'
import type { MetricSample } from '@nonroot/contracts'
import type { TraceEvents } from './protocol.ts'
import { createThreadTracer } from './thread-tracer.ts'

it.each([
  { what: 'cheap', costMs: 0, samples: 100 },
  { what: 'dear', costMs: 8, samples: 5 },
])('$what samples', ({ costMs, samples }) => {
  let now = 0
  vi.spyOn(performance, 'now').mockImplementation(() => now)
  const sent: TraceEvents[] = []
  let value = 0
  const read = (): MetricSample[] => {
    now += costMs
    return [{ name: 'frames', kind: 'gauge', unit: 'count', help: '', value: value++ }]
  }
  const tracer = createThreadTracer(read, (events) => sent.push(events))
  // A slice each millisecond, for a second.
  while (now < 1000) tracer.slice('vcpu0', 'budget', now, ++now)
  tracer.flush()
  vi.restoreAllMocks()
  const counters = sent.flatMap((events) => [...events.counters])
  expect(counters.length / 3).toBeLessThanOrEqual(samples + 1)
  expect(counters.length / 3).toBeGreaterThanOrEqual(samples - 1)
})
