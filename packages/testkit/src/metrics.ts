/** Metrics and a log that tests can read back. */

import type { Counter, Gauge, Histogram, Log, MetricSample, Metrics, MetricUnit } from '@nonroot/contracts'

function createHistogram(): Histogram {
  const buckets = new Float64Array(64)
  let count = 0
  let sum = 0
  let max = 0
  return {
    observe(value) {
      count++
      sum += value
      max = Math.max(max, value)
      buckets[value < 1 ? 0 : Math.min(63, Math.floor(Math.log2(value)) + 1)]!++
    },
    get count() {
      return count
    },
    get sum() {
      return sum
    },
    get max() {
      return max
    },
    buckets,
  }
}

type Entry = { kind: MetricSample['kind']; unit: MetricUnit; help: string; metric: Counter | Gauge | Histogram }

export function createTestMetrics(entries = new Map<string, Entry>(), prefix = ''): Metrics {
  const get = <T extends Entry['metric']>(entry: Omit<Entry, 'metric'>, name: string, make: () => T): T => {
    const full = prefix + name
    if (!entries.has(full)) entries.set(full, { ...entry, metric: make() })
    return entries.get(full)!.metric as T
  }
  return {
    counter: (name, help, unit = 'count') => get({ kind: 'counter', unit, help }, name, () => ({ value: 0 })),
    gauge: (name, help, unit = 'count') => get({ kind: 'gauge', unit, help }, name, () => ({ value: 0 })),
    histogram: (name, help, unit = 'ns') => get({ kind: 'histogram', unit, help }, name, createHistogram),
    scope: (name) => createTestMetrics(entries, `${prefix}${name}.`),
    samples: () =>
      [...entries]
        .filter(([name]) => name.startsWith(prefix))
        .map(([name, { kind, unit, help, metric }]) => ({
          name,
          kind,
          unit,
          help,
          ...('value' in metric
            ? { value: metric.value }
            : { value: metric.sum, count: metric.count, max: metric.max }),
        })),
  }
}

export interface TestLog extends Log {
  /** `warn: message` */
  readonly lines: string[]
}

export function createTestLog(): TestLog {
  const lines: string[] = []
  const at = (level: string) => (message: string | (() => string)) =>
    void lines.push(`${level}: ${typeof message === 'string' ? message : message()}`)
  return { lines, debug: at('debug'), info: at('info'), warn: at('warn'), error: at('error') }
}
