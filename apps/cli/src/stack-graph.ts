/** A stack drawn as SVG: guest on top, host at the bottom, one box a layer, arrows from needs to gives. */

import { machineText, optionsText } from './stack-view.ts'
import type { LayerView, StackView } from './stack-view.ts'

const WIDTH = 920
const MARGIN = 24
const ROW = 76
const GAP = 18
/** Between boxes of a row in which one needs what another gives: room for the word on the arrow. */
const ARROW_GAP = 112
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
  readonly lines: readonly string[]
  x: number
  y: number
  width: number
}

const escape = (text: string): string =>
  text.replaceAll('&', '&amp;').replaceAll('<', '&lt;').replaceAll('>', '&gt;').replaceAll('"', '&quot;')
const clip = (text: string, width: number): string => {
  const room = Math.floor((width - 20) / 6.3)
  return text.length > room ? `${text.slice(0, room - 1)}…` : text
}

const layerBox = (view: LayerView): Box => ({
  id: view.place,
  kind: view.role,
  title: `${view.name ?? view.place}: ${view.strategy}`,
  lines: [`${view.package}@${view.version}`, optionsText(view.options)].filter(Boolean),
  x: 0,
  y: 0,
  width: 0,
})
const plainBox = (id: string, title: string, ...lines: string[]): Box => ({
  id,
  kind: id,
  title,
  lines,
  x: 0,
  y: 0,
  width: 0,
})

export function drawStack(view: StackView, title: string): string {
  const of = (...roles: string[]): Box[] => view.layers.filter((layer) => roles.includes(layer.role)).map(layerBox)
  const rows: Box[][] = [
    [plainBox('guest', 'guest', machineText(view.machine)), ...(view.boot ? [layerBox(view.boot)] : [])],
    view.devices.map(layerBox),
    [...of('abi'), ...of('io')],
    [...of('cpu'), ...of('paging')],
    of('reclaim', 'scheduler'),
    [plainBox('host', 'host', 'frames of one WebAssembly memory, threads, files, terminals')],
  ].filter((row) => row.length)

  rows.forEach((row, index) => {
    const gap = row.some((box) => needsNeighbour(view, box, row)) ? ARROW_GAP : GAP
    const width = (WIDTH - 2 * MARGIN - gap * (row.length - 1)) / row.length
    row.forEach((box, column) => {
      box.x = MARGIN + column * (width + gap)
      box.y = 56 + index * (ROW + GAP)
      box.width = width
    })
  })
  const boxes = rows.flat()
  const height = 56 + rows.length * (ROW + GAP) + MARGIN
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, sans-serif">`,
    '<defs><marker id="arrow" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="#9a3b26"/></marker></defs>',
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="${MARGIN}" y="34" font-size="18" font-weight="600">${escape(title)}</text>`,
    ...boxes.map(boxSvg),
    ...edges(view, boxes),
    '</svg>\n',
  ].join('\n')
}

const layersOf = (view: StackView): LayerView[] => [...view.layers, ...view.devices, ...(view.boot ? [view.boot] : [])]

function needsNeighbour(view: StackView, box: Box, row: readonly Box[]): boolean {
  const layers = layersOf(view)
  const needs = layers.find((layer) => layer.place === box.id)?.needs ?? []
  const neighbours = layers.filter((layer) => layer.place !== box.id && row.some((other) => other.id === layer.place))
  return neighbours.some((layer) => layer.gives.some((give) => needs.includes(give)))
}

function boxSvg(box: Box): string {
  const { x, y, width } = box
  const text = (line: string, index: number): string =>
    `<text x="${x + 10}" y="${y + 42 + index * 17}" font-size="11.5" fill="#444">${escape(clip(line, width))}</text>`
  return [
    `<g><rect x="${x}" y="${y}" width="${width}" height="${ROW}" rx="6" fill="${FILLS[box.kind] ?? '#f4f4f4'}" stroke="#777"/>`,
    `<text x="${x + 10}" y="${y + 22}" font-size="13.5" font-weight="600">${escape(clip(box.title, width))}</text>`,
    ...box.lines.slice(0, 2).map(text),
    '</g>',
  ].join('')
}

/** From a layer that needs something to the one that gives it. */
function edges(view: StackView, boxes: readonly Box[]): string[] {
  const layers = layersOf(view)
  const boxOf = (layer: LayerView): Box => boxes.find((box) => box.id === layer.place)!
  return layers.flatMap((layer) =>
    layer.needs.flatMap((need) =>
      layers
        .filter((other) => other !== layer && other.gives.includes(need))
        .map((other) => {
          const [from, to] = [boxOf(layer), boxOf(other)]
          const sameRow = from.y === to.y
          const leftward = to.x < from.x
          const [x1, y1] = sameRow
            ? [leftward ? from.x : from.x + from.width, from.y + ROW / 2]
            : [from.x + from.width / 2, from.y + (to.y > from.y ? ROW : 0)]
          const [x2, y2] = sameRow
            ? [leftward ? to.x + to.width : to.x, to.y + ROW / 2]
            : [to.x + to.width / 2, to.y + (to.y > from.y ? 0 : ROW)]
          return (
            `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="#9a3b26" stroke-width="1.4" marker-end="url(#arrow)"/>` +
            `<text x="${(x1 + x2) / 2 + 4}" y="${(y1 + y2) / 2 - (sameRow ? 6 : -3)}" font-size="10.5" fill="#9a3b26"${sameRow ? ' text-anchor="middle"' : ''}>${escape(need)}</text>`
          )
        }),
    ),
  )
}
