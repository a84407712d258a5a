/** A stack as a drawing: the guest on top, below it what its VM exits go through, one box a part. Arrows: where exits go, and from needs to gives. */

import { draw } from './stack-drawing.ts'
import type { Arrow, Box } from './stack-drawing.ts'
import type { Figures, Way } from './stack-figures.ts'
import { machineText, optionLines } from './stack-view.ts'
import type { LayerView, StackView } from './stack-view.ts'

const integer = new Intl.NumberFormat('en-US')

const layerBox = (view: LayerView, more: readonly string[] = []): Box => ({
  id: view.place,
  kind: view.role,
  title: `${view.name ?? view.place}: ${view.strategy}`,
  text: [`${view.package}@${view.version}`, ...flatLines('', view.options), ...more],
})

/** Options in lines of their own, those within others, too: `firmware.bootMenu: true`. */
const flatLines = (prefix: string, options: unknown): string[] =>
  Object.entries(Object(options) as object).flatMap(([key, value]: [string, unknown]) =>
    value !== null && typeof value === 'object' && !Array.isArray(value)
      ? flatLines(`${prefix}${key}.`, value)
      : optionLines({ [`${prefix}${key}`]: value }),
  )

export function drawStack(view: StackView, title: string, figures?: Figures): string {
  const of = (...roles: string[]): Box[] =>
    view.layers.filter((layer) => roles.includes(layer.role)).map((layer) => layerBox(layer, layer.place === 'io[0]' ? platform(view, figures) : []))
  const guest: Box = { id: 'guest', kind: 'guest', title: 'guest', text: [machineText(view.machine)] }
  const host: Box = { id: 'host', kind: 'host', title: 'host', text: ['frames of one WebAssembly memory, threads, files, terminals'] }
  const rows: Box[][] = [
    [guest, ...(view.boot ? [layerBox(view.boot)] : [])],
    [...of('cpu'), ...of('paging')],
    [...of('abi'), ...of('io')],
    view.devices.map((device) => layerBox(device)),
    of('reclaim', 'scheduler'),
    [host],
  ].filter((row) => row.length)
  const boxes = rows.flat()
  return draw(title, rows, [...exitArrows(view, boxes, figures), ...needArrows(view, boxes)])
}

const layersOf = (view: StackView): LayerView[] => [...view.layers, ...view.devices, ...(view.boot ? [view.boot] : [])]

/** Devices that no one named: the I/O models'. */
function platform(view: StackView, figures: Figures | undefined): string[] {
  const named = new Set(view.devices.map(({ name }) => name))
  const lines = [...(figures?.devices ?? [])].filter(([name, count]) => !named.has(name) && count > 0)
  return lines.length ? [`accesses: ${lines.map(([name, count]) => `${name} ${integer.format(count)}`).join(', ')}`] : []
}

/** (docs/ARCHITECTURE.md, "A VM exit, step by step") */
function exitArrows(view: StackView, boxes: readonly Box[], figures: Figures | undefined): Arrow[] {
  const boxOf = (id: string): Box | undefined => boxes.find((one) => one.id === id)
  const counted = (words: string, way: Way): string => (figures ? `${words}: ${integer.format(figures.on(way))}` : words)
  const ways: [string, string, string][] = [
    ['guest', 'cpu', counted('exits', 'exits')],
    ['cpu', 'paging', counted('memory', 'memory')],
    ['cpu', 'abi', counted('calls, CPUID, MSRs', 'calls')],
    ['cpu', 'io[0]', counted('ports, MMIO', 'accesses')],
    ...view.devices.map(({ place: device, name }): [string, string, string] => {
      const count = figures?.devices.get(name!)
      return ['io[0]', device, count === undefined ? '' : integer.format(count)]
    }),
  ]
  return ways.flatMap(([from, to, label]) => {
    const ends = [boxOf(from), boxOf(to)]
    return ends[0] && ends[1] ? [{ from: ends[0], to: ends[1], label, kind: 'exit' as const }] : []
  })
}

/** From a layer that needs something to the one that gives it. */
function needArrows(view: StackView, boxes: readonly Box[]): Arrow[] {
  const layers = layersOf(view)
  const boxOf = (layer: LayerView): Box => boxes.find((one) => one.id === layer.place)!
  return layers.flatMap((layer) =>
    layer.needs.flatMap((need) =>
      layers
        .filter((other) => other !== layer && other.gives.includes(need))
        .map((other) => ({ from: boxOf(layer), to: boxOf(other), label: need, kind: 'need' as const })),
    ),
  )
}
