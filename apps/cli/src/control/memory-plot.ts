/** Who has what of a host's memory over time, as SVG: an area for each VM, one for what several use, and one for what is free. */

import { FRAME_SIZE } from '@nonroot/contracts'
import type { MemoryUse } from '@nonroot/contracts'
import type { HostMemoryUse } from '../run/protocol.ts'

export interface MemorySample {
  readonly seconds: number
  readonly host: Pick<HostMemoryUse, 'guestFrames' | 'freeGuestFrames'>
  readonly vms: readonly {
    readonly name: string
    readonly memory?: Pick<MemoryUse, 'residentFrames' | 'sharedFrames'>
  }[]
}

/** With more samples than this, every other one is dropped: a point is narrower than a pixel. */
const MOST = 1200
const [WIDTH, HEIGHT, LEFT, TOP, LEGEND] = [900, 320, 60, 34, 190]
const COLOURS = ['#4269d0', '#efb118', '#ff725c', '#6cc5b0', '#3ca951', '#ff8ab7', '#a463f2', '#97bbf5', '#9c6b4e']
const SHARED = '#9498a0'
const FREE = '#eeeeee'

/** Keeps the samples of a host as long as it runs. */
export class MemoryHistory {
  #samples: MemorySample[] = []

  add(sample: MemorySample): void {
    this.#samples.push(sample)
    if (this.#samples.length > MOST) this.#samples = this.#samples.filter((_, index) => index % 2 === 0)
  }

  svg(title: string): string {
    return memoryPlot(title, this.#samples)
  }
}

const mib = (frames: number): number => (frames * FRAME_SIZE) / 2 ** 20

export function memoryPlot(title: string, samples: readonly MemorySample[]): string {
  const names = [...new Set(samples.flatMap(({ vms }) => vms.map(({ name }) => name)))]
  const total = Math.max(1, ...samples.map(({ host }) => host.guestFrames))
  const [from, to] = [samples[0]?.seconds ?? 0, samples.at(-1)?.seconds ?? 0]
  const x = (seconds: number): number => LEFT + ((seconds - from) / Math.max(1, to - from)) * WIDTH
  const y = (frames: number): number => TOP + HEIGHT - (Math.min(frames, total) / total) * HEIGHT
  /** Of each sample the frames of each VM alone, of several, and the free ones. */
  const layers = samples.map(({ host, vms }) => {
    const own = names.map((name) => {
      const use = vms.find((vm) => vm.name === name)?.memory
      return use ? use.residentFrames - use.sharedFrames : 0
    })
    const used = host.guestFrames - host.freeGuestFrames
    const several = Math.max(0, used - own.reduce((sum, frames) => sum + frames, 0))
    return [...own, several, Math.max(0, host.freeGuestFrames)]
  })
  const kinds = [
    ...names.map((name, index) => [name, COLOURS[index % COLOURS.length]!] as const),
    ['shared, tables, compressed', SHARED] as const,
    ['free', FREE] as const,
  ]
  const edge = (sample: number, kind: number): string =>
    `${x(samples[sample]!.seconds).toFixed(1)},${y(layers[sample]!.slice(0, kind).reduce((sum, frames) => sum + frames, 0)).toFixed(1)}`
  const order = samples.map((_, index) => index)
  const areas = kinds.map(([, colour], kind) => {
    const points = [...order.map((at) => edge(at, kind + 1)), ...order.toReversed().map((at) => edge(at, kind))]
    return `<polygon points="${points.join(' ')}" fill="${colour}"/>`
  })
  const legend = kinds.map(
    ([name, colour], index) =>
      `<rect x="${LEFT + WIDTH + 14}" y="${TOP + index * 18}" width="12" height="12" fill="${colour}" stroke="#333" stroke-width="0.3"/>` +
      `<text x="${LEFT + WIDTH + 32}" y="${TOP + index * 18 + 10}">${escaped(name)}</text>`,
  )
  const ticks = [0, 1, 2, 3, 4].flatMap((quarter) => [
    `<text x="${LEFT - 6}" y="${y((total * quarter) / 4) + 4}" text-anchor="end">${mib((total * quarter) / 4).toFixed(0)}</text>`,
    `<text x="${LEFT + (WIDTH * quarter) / 4}" y="${TOP + HEIGHT + 16}" text-anchor="middle">${(((to - from) * quarter) / 4).toFixed(0)} s</text>`,
  ])
  const [width, height] = [LEFT + WIDTH + LEGEND, Math.max(TOP + HEIGHT + 30, TOP + kinds.length * 18 + 10)]
  return `${[
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${height}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="white"/>',
    `<text x="10" y="20" font-size="14">${escaped(title)}</text>`,
    `<text x="${LEFT}" y="${TOP - 4}" fill="#555" text-anchor="end">MiB</text>`,
    ...(samples.length > 1 ? areas : []),
    ...legend,
    ...ticks,
    '</svg>',
  ].join('\n')}\n`
}

const escaped = (text: string): string => text.replace(/[<>&"]/g, (one) => `&#${one.charCodeAt(0)};`)
