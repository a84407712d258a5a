/** How often VM exits went from part to part of a stack, out of the statistics of a run. */

import { readFile } from 'node:fs/promises'
import type { MetricSample } from '@nonroot/contracts'
import { NonrootError } from '@nonroot/contracts'

/** Where exits go, and the metrics that count them there. */
const WAYS = {
  exits: /^vcpu\d+\.exits$/,
  memory: /^vcpu\d+\.exits\.(ept\w+|exceptionOrNmi|controlRegisterAccess|invlpg)$/,
  calls: /^vcpu\d+\.(exits\.(vmcall|cpuid|rdmsr|wrmsr)|hypercalls)$/,
  accesses: /^io\.(port|mmio)(Reads|Writes)$/,
} as const
export type Way = keyof typeof WAYS

export interface Figures {
  on(way: Way): number
  /** Accesses to the registers of devices, by their names. */
  readonly devices: ReadonlyMap<string, number>
}

export function figuresOf(metrics: readonly Pick<MetricSample, 'name' | 'value'>[]): Figures {
  const devices = metrics.flatMap(({ name, value }): [string, number][] => {
    const device = /^device\.([^.]+)\.accesses$/.exec(name)
    return device ? [[device[1]!, value]] : []
  })
  return {
    on: (way) => metrics.reduce((sum, { name, value }) => sum + (WAYS[way].test(name) ? value : 0), 0),
    devices: new Map(devices),
  }
}

/** Of what `run --stats=json` wrote. */
export async function readFigures(file: string): Promise<Figures> {
  const text = await readFile(file, 'utf8').catch((cause: unknown) => {
    throw new NonrootError({ code: 'host.file', message: `cannot read ${file}: ${(cause as Error).message}`, thing: file, cause })
  })
  try {
    const { metrics } = JSON.parse(text) as { metrics: MetricSample[] }
    return figuresOf(metrics)
  } catch (cause) {
    const remedy = `nonroot run --stats=json ... 2>${file} writes such a file`
    throw new NonrootError({ code: 'usage', message: `--stats-from: ${file} has no statistics of a run`, thing: '--stats-from', value: file, remedy, cause })
  }
}
