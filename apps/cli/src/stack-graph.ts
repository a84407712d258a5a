/** A stack drawn as SVG: the guest on top, below it what its VM exits go through, one box a part. Arrows: where exits go, and from needs to gives. */

import type { Figures, Way } from './stack-figures.ts'
import { machineText, optionLines } from './stack-view.ts'
import type { LayerView, StackView } from './stack-view.ts'

const WIDTH = 980
const MARGIN = 24
const TITLE = 64
/** Between boxes of a row: room for the words beside an arrow. */
const GAP = 24
const ARROW_GAP = 150
const ROW_GAP = 56
const LINE = 16
/** About, of a letter in a box and of one beside an arrow. */
const LETTER = 6.3
const EXIT = { colour: '#1f5f99', marker: 'exit', dash: '' }
const NEED = { colour: '#9a3b26', marker: 'need', dash: ' stroke-dasharray="4 3"' }
const FILLS: Readonly<Record<string, string>> = {
  guest: '#fdf3d8',
  boot: '#fdf3d8',
  device: '#e3f1e4',
  io: '#e3f1e4',
  abi: '#e6ecfa',
  cpu: '#e6ecfa',
  paging: '#e6ecfa',
  reclaim: '#f3e6f7',
  scheduler: '#f3e6f7',
  host: '#ececec',
}

interface Box {
  readonly id: string
  readonly kind: string
  readonly title: string
  readonly text: readonly string[]
  /** The text in lines that fit. */
  lines: readonly string[]
  x: number
  y: number
  width: number
  height: number
}

interface Arrow {
  readonly from: Box
  readonly to: Box
  readonly label: string
  readonly style: typeof EXIT
}

const integer = new Intl.NumberFormat('en-US')
const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')

/** In lines of so many letters; a word that is longer is cut into several. */
function wrap(text: string, room: number): string[] {
  const lines: string[] = []
  for (const word of text.split(' ')) {
    const longer = lines.length ? `${lines.at(-1)} ${word}` : word
    if (lines.length && longer.length <= room) lines[lines.length - 1] = longer
    else for (let at = 0; at === 0 || at < word.length; at += room) lines.push(word.slice(at, at + room))
  }
  return lines
}

const box = (id: string, kind: string, title: string, text: readonly string[]): Box => ({
  ...{ id, kind, title, text, lines: [] },
  ...{ x: 0, y: 0, width: 0, height: 0 },
})
const layerBox = (view: LayerView, more: readonly string[] = []): Box =>
  box(view.place, view.role, `${view.name ?? view.place}: ${view.strategy}`, [
    `${view.package}@${view.version}`,
    ...optionLines(view.options),
    ...more,
  ])

export function drawStack(view: StackView, title: string, figures?: Figures): string {
  const of = (...roles: string[]): Box[] =>
    view.layers.filter((layer) => roles.includes(layer.role)).map((layer) => layerBox(layer, layer.place === 'io[0]' ? platform(view, figures) : []))
  const rows: Box[][] = [
    [box('guest', 'guest', 'guest', [machineText(view.machine)]), ...(view.boot ? [layerBox(view.boot)] : [])],
    [...of('cpu'), ...of('paging')],
    [...of('abi'), ...of('io')],
    view.devices.map((device) => layerBox(device)),
    of('reclaim', 'scheduler'),
    [box('host', 'host', 'host', ['frames of one WebAssembly memory, threads, files, terminals'])],
  ].filter((row) => row.length)
  const boxes = rows.flat()
  const arrows = [...exitArrows(view, boxes, figures), ...needArrows(view, boxes)]
  const height = place(rows, arrows)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, sans-serif">`,
    `<defs>${[EXIT, NEED].map(({ colour, marker }) => `<marker id="${marker}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="${colour}"/></marker>`).join('')}</defs>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="${MARGIN}" y="34" font-size="18" font-weight="600">${escape(title)}</text>`,
    ...[{ style: EXIT, words: 'VM exits' }, { style: NEED, words: 'needs' }].map(({ style, words }, index) => {
      const x = WIDTH - MARGIN - 200 + index * 110
      return `<path d="M${x} 30h24" stroke="${style.colour}" stroke-width="1.4"${style.dash} marker-end="url(#${style.marker})"/><text x="${x + 30}" y="34" font-size="11.5" fill="${style.colour}">${words}</text>`
    }),
    ...boxes.map(boxSvg),
    ...arrowsSvg(arrows),
    '</svg>\n',
  ].join('\n')
}

/** Sets places and sizes; returns the height of the drawing. */
function place(rows: readonly Box[][], arrows: readonly Arrow[]): number {
  let y = TITLE
  for (const row of rows) {
    const hasArrow = arrows.some(({ from, to }) => row.includes(from) && row.includes(to))
    const gap = hasArrow ? ARROW_GAP : GAP
    const width = (WIDTH - 2 * MARGIN - gap * (row.length - 1)) / row.length
    for (const [column, one] of row.entries()) {
      one.lines = one.text.flatMap((text) => wrap(text, Math.max(4, Math.floor((width - 20) / LETTER))))
      Object.assign(one, { x: MARGIN + column * (width + gap), y, width })
    }
    const height = 34 + LINE * Math.max(...row.map(({ lines }) => lines.length))
    for (const one of row) one.height = height
    y += height + ROW_GAP
  }
  return y - ROW_GAP + MARGIN
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
    return ends[0] && ends[1] ? [{ from: ends[0], to: ends[1], label, style: EXIT }] : []
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
        .map((other) => ({ from: boxOf(layer), to: boxOf(other), label: need, style: NEED })),
    ),
  )
}

function boxSvg({ x, y, width, height, kind, title, lines }: Box): string {
  const text = (line: string, index: number): string =>
    `<text x="${x + 10}" y="${y + 40 + index * LINE}" font-size="11.5" fill="#444">${escape(line)}</text>`
  return [
    `<g><rect x="${x}" y="${y}" width="${width}" height="${height}" rx="6" fill="${FILLS[kind] ?? '#f4f4f4'}" stroke="#777"/>`,
    `<text x="${x + 10}" y="${y + 22}" font-size="13.5" font-weight="600">${escape(title)}</text>`,
    ...lines.map(text),
    '</g>',
  ].join('')
}

/** Arrows that share a side of a box are side by side, and each label stands beside its arrow. */
function arrowsSvg(arrows: readonly Arrow[]): string[] {
  const taken = new Map<string, number>()
  /** The next free place at a side: 1/2, 1/4, 3/4, 1/8 and so on of it. */
  const next = (of: Box, side: string): number => {
    const used = (taken.get(of.id + side) ?? 0) + 1
    taken.set(of.id + side, used)
    const level = 2 ** Math.floor(Math.log2(used))
    return (used - level + 0.5) / level
  }
  return arrows.map(({ from, to, label, style }) => {
    const { colour, marker, dash } = style
    const isBeside = from.y === to.y
    const [start, end] = isBeside ? (to.x < from.x ? ['left', 'right'] : ['right', 'left']) : to.y > from.y ? ['bottom', 'top'] : ['top', 'bottom']
    const at = (of: Box, side: string): [number, number] => {
      const part = next(of, side)
      if (isBeside) return [side === 'left' ? of.x : of.x + of.width, of.y + of.height * part]
      return [of.x + of.width * part, side === 'top' ? of.y : of.y + of.height]
    }
    const [x1, y1] = at(from, start!)
    let [x2, y2] = at(to, end!)
    if (isBeside) y2 = y1
    const [x, y] = isBeside ? [(x1 + x2) / 2, y1 - 6] : [x1 + 0.75 * (x2 - x1) + 7, y1 + 0.75 * (y2 - y1) - (y2 > y1 ? 4 : -10)]
    return (
      `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}" stroke-width="1.4"${dash} marker-end="url(#${marker})"/>` +
      `<text x="${x}" y="${y}" font-size="10.5" fill="${colour}" stroke="#fff" stroke-width="3" paint-order="stroke"${isBeside ? ' text-anchor="middle"' : ''}>${escape(label)}</text>`
    )
  })
}
