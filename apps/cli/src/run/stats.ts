/** The metrics of a run, as text and as data. Independent of particular parts: metrics describe themselves by name and unit. */

import type { MetricSample } from '@nonroot/contracts'

const integer = new Intl.NumberFormat('en-US', { maximumFractionDigits: 0 })

/** `1.234 s`, `56.7 ms`, `890 ns`. */
export function timeText(ns: number): string {
  const [scale, unit] = ns >= 1e9 ? [1e9, 's'] : ns >= 1e6 ? [1e6, 'ms'] : ns >= 1e3 ? [1e3, 'µs'] : [1, 'ns']
  return `${Number((ns / (scale as number)).toPrecision(4))} ${unit}`
}

function valueText({ kind, unit, value, count, max }: MetricSample): string {
  if (kind === 'histogram') {
    const mean = count ? value / count : 0
    const amount = unit === 'ns' ? timeText : (of: number) => integer.format(of)
    return `${integer.format(count ?? 0)} × ${amount(mean)} (most ${amount(max ?? 0)})`
  }
  if (unit === 'ns') return timeText(value)
  return unit === 'bytes' ? `${integer.format(value)} B` : integer.format(value)
}

/** `vcpu0.exits.cpuid`, `vcpu0.exitCost.cpuid` and the like: where exits are counted by reason. */
const EXITS = /^(?:.*\.)?(?:exits|exitCost)\.([^.]+)$/

interface ExitRow {
  readonly reason: string
  count: number
  ns: number
}

/** Exits by reason: from histograms of their cost, or from a counter with another for its time (`cpuid`, `cpuidNs`). */
function exitRows(samples: readonly MetricSample[]): ExitRow[] {
  const rows = new Map<string, ExitRow>()
  for (const sample of samples) {
    const match = EXITS.exec(sample.name)
    if (!match) continue
    const reason = match[1]!.replace(/(?<=.)Ns$/, '')
    const row = rows.get(reason) ?? { reason, count: 0, ns: 0 }
    rows.set(reason, row)
    if (sample.kind === 'histogram') {
      row.count += sample.count ?? 0
      row.ns += sample.unit === 'ns' ? sample.value : 0
    } else if (sample.unit === 'ns') row.ns += sample.value
    else row.count += sample.value
  }
  return [...rows.values()].filter(({ count }) => count > 0).sort((left, right) => right.count - left.count)
}

export function statsText(samples: readonly MetricSample[]): string {
  const rows = exitRows(samples)
  const lines: string[] = []
  if (rows.length) {
    const all = rows.reduce((sum, { count }) => sum + count, 0)
    lines.push(
      `${'exits by reason'.padEnd(28)}${'count'.padStart(14)}${'share'.padStart(9)}${'time'.padStart(14)}${'each'.padStart(12)}`,
    )
    for (const { reason, count, ns } of rows) {
      const share = `${((100 * count) / all).toFixed(1)} %`
      const times = ns > 0 ? [timeText(ns), timeText(ns / count)] : ['', '']
      lines.push(
        `  ${reason.padEnd(26)}${integer.format(count).padStart(14)}${share.padStart(9)}${times[0]!.padStart(14)}${times[1]!.padStart(12)}`,
      )
    }
    lines.push('')
  }
  const groups = new Map<string, string[]>()
  for (const sample of samples) {
    if (EXITS.test(sample.name) || (sample.kind === 'histogram' ? sample.count === 0 : sample.value === 0)) continue
    const dot = sample.name.lastIndexOf('.')
    const scope = sample.name.slice(0, Math.max(dot, 0))
    if (!groups.has(scope)) groups.set(scope, [scope])
    groups
      .get(scope)!
      .push(`  ${sample.name.slice(dot + 1).padEnd(26)}${valueText(sample).padStart(14)}   ${sample.help}`)
  }
  lines.push(...[...groups.values()].flat())
  return `${lines.join('\n')}\n`
}

export interface StatsJson {
  readonly version: 1
  readonly exits: readonly { readonly reason: string; readonly count: number; readonly ns: number }[]
  readonly metrics: readonly MetricSample[]
}

export const statsJson = (samples: readonly MetricSample[]): StatsJson => ({
  version: 1,
  exits: exitRows(samples),
  metrics: samples,
})
