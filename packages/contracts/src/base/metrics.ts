/** Metrics. Cheap enough for hot paths: a counter is an object with a number. */

import { token } from './token.ts'

/** Only increases. The owner adds to `value` directly; readers sample it. */
export interface Counter {
  value: number
}

/** Increases and decreases. */
export interface Gauge {
  value: number
}

/** Distribution of a quantity in its unit: powers of two from 1. `observe` does not allocate. */
export interface Histogram {
  observe(value: number): void
  readonly count: number
  readonly sum: number
  readonly max: number
  /** `buckets[i]` counts values below 2^i that fit no earlier bucket. */
  readonly buckets: Readonly<Float64Array>
}

export type MetricUnit = 'count' | 'bytes' | 'ns' | 'instructions' | 'frames' | 'ratio'

/** One reading. `labels` are baked into the name by the scope that made it. */
export interface MetricSample {
  /** Dotted path: `vcpu0.exits.portIo`, `device.uart0.bytesOut`. */
  readonly name: string
  readonly kind: 'counter' | 'gauge' | 'histogram'
  readonly unit: MetricUnit
  readonly help: string
  readonly value: number
  readonly count?: number
  readonly max?: number
}

/**
 * A registry, or a named part of one. The kernel hands each part a scope of its own; requesting a name twice returns the same metric. Create metrics
 * at construction, never on the hot path.
 */
export interface Metrics {
  counter(name: string, help: string, unit?: MetricUnit): Counter
  gauge(name: string, help: string, unit?: MetricUnit): Gauge
  histogram(name: string, help: string, unit?: MetricUnit): Histogram
  scope(name: string): Metrics
  samples(): MetricSample[]
}
export const Metrics = token<Metrics>('Metrics')
