/** Metrics in the text format of Prometheus ("Text-based format"). */

import type { MetricSample } from '@nonroot/contracts'

/** Samples of one VM, or of what VMs share. */
export interface LabelledSamples {
  readonly labels: Readonly<Record<string, string>>
  readonly samples: readonly MetricSample[]
}

interface Family {
  readonly type: 'counter' | 'gauge' | 'summary'
  readonly help: string
  readonly lines: string[]
}

/** `vcpu0.exits.portIo` is `nonroot_vcpu_exits_port_io_total{vcpu="0"}`; times are in seconds. */
export function prometheusText(all: readonly LabelledSamples[]): string {
  const families = new Map<string, Family>()
  for (const { labels, samples } of all) for (const sample of samples) add(families, labels, sample)
  return [...families]
    .flatMap(([name, { type, help, lines }]) => [`# HELP ${name} ${help}`, `# TYPE ${name} ${type}`, ...lines])
    .map((line) => `${line}\n`)
    .join('')
}

function add(families: Map<string, Family>, given: Readonly<Record<string, string>>, sample: MetricSample): void {
  const { kind, unit, help, value, count = 0, max = 0 } = sample
  const { path, labels } = placed(sample.name)
  const isTime = unit === 'ns'
  const suffix = isTime ? '_seconds' : unit === 'bytes' ? '_bytes' : ''
  const base = `nonroot_${(isTime ? path.replace(/_ns$/, '') : path).replace(new RegExp(`${suffix}$`), '')}${suffix}`
  const text = labelText({ ...given, ...labels })
  const scale = isTime ? 1e9 : 1
  const family = (name: string, type: Family['type']): string[] => {
    if (!families.has(name))
      families.set(name, { type, help: help.replaceAll('\\', '\\\\').replaceAll('\n', ' '), lines: [] })
    return families.get(name)!.lines
  }
  if (kind === 'histogram') {
    family(base, 'summary').push(`${base}_sum${text} ${value / scale}`, `${base}_count${text} ${count}`)
    family(`${base}_max`, 'gauge').push(`${base}_max${text} ${max / scale}`)
  } else {
    const name = kind === 'counter' ? `${base}_total` : base
    family(name, kind).push(`${name}${text} ${value / scale}`)
  }
}

/** Numbers of vCPUs and names of devices are labels. */
function placed(name: string): { path: string; labels: Record<string, string> } {
  const labels: Record<string, string> = {}
  const steps = name.split('.')
  const path = steps.flatMap((step, index) => {
    const vcpu = /^vcpu(\d+)$/.exec(step)
    if (vcpu) {
      labels['vcpu'] = vcpu[1]!
      return ['vcpu']
    }
    if (steps[index - 1] === 'device') {
      labels['device'] = step
      return []
    }
    return [
      step
        .replaceAll(/[^a-zA-Z0-9]+/g, '_')
        .replaceAll(/(?<=[a-z0-9])[A-Z]/g, (upper) => `_${upper}`)
        .toLowerCase(),
    ]
  })
  return { path: path.join('_'), labels }
}

function labelText(labels: Readonly<Record<string, string>>): string {
  const escaped = (value: string): string =>
    value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escaped(value)}"`)
  return parts.length ? `{${parts.join(',')}}` : ''
}
