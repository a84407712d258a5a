/** The registry of metrics. Requesting a name twice returns the same metric. */

import type { Counter, Gauge, Histogram, Metrics, MetricSample, MetricUnit } from '@nonroot/contracts'

/** Values below 2^i for i up to 63. */
const BUCKETS = 64

class PowersOfTwo implements Histogram {
  readonly buckets = new Float64Array(BUCKETS)
  count = 0
  sum = 0
  max = 0

  observe(value: number): void {
    this.count++
    this.sum += value
    if (value > this.max) this.max = value
    let bucket = 0
    if (value < 0x8000_0000) bucket = value < 1 ? 0 : 32 - Math.clz32(value)
    else bucket = Math.min(BUCKETS - 1, Math.floor(Math.log2(value)) + 1)
    this.buckets[bucket]!++
  }
}

interface Entry {
  readonly kind: MetricSample['kind']
  readonly unit: MetricUnit
  readonly help: string
  readonly metric: Counter | Gauge | Histogram
}

class Registry implements Metrics {
  readonly #entries: Map<string, Entry>
  readonly #prefix: string

  constructor(entries: Map<string, Entry>, prefix: string) {
    this.#entries = entries
    this.#prefix = prefix
  }

  counter(name: string, help: string, unit: MetricUnit = 'count'): Counter {
    return this.#get(name, 'counter', unit, help, () => ({ value: 0 })) as Counter
  }

  gauge(name: string, help: string, unit: MetricUnit = 'count'): Gauge {
    return this.#get(name, 'gauge', unit, help, () => ({ value: 0 })) as Gauge
  }

  histogram(name: string, help: string, unit: MetricUnit = 'ns'): Histogram {
    return this.#get(name, 'histogram', unit, help, () => new PowersOfTwo()) as Histogram
  }

  #get(name: string, kind: Entry['kind'], unit: MetricUnit, help: string, make: () => Entry['metric']) {
    const full = this.#prefix + name
    let entry = this.#entries.get(full)
    if (!entry) this.#entries.set(full, (entry = { kind, unit, help, metric: make() }))
    return entry.metric
  }

  scope(name: string): Metrics {
    return new Registry(this.#entries, `${this.#prefix}${name}.`)
  }

  samples(): MetricSample[] {
    const samples: MetricSample[] = []
    for (const [name, { kind, unit, help, metric }] of this.#entries) {
      if (!name.startsWith(this.#prefix)) continue
      samples.push(
        'observe' in metric
          ? { name, kind, unit, help, value: metric.sum, count: metric.count, max: metric.max }
          : { name, kind, unit, help, value: metric.value },
      )
    }
    return samples
  }
}

export const createMetrics = (): Metrics => new Registry(new Map(), '')
