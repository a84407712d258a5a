/** Rows of boxes with arrows between them, as SVG. Each arrow between rows has a lane of its own to turn in, so that no label is on another. */

export interface Box {
  readonly id: string
  /** Chooses its colour. */
  readonly kind: string
  readonly title: string
  readonly text: readonly string[]
}

export interface Arrow {
  readonly from: Box
  readonly to: Box
  readonly label: string
  readonly kind: keyof typeof STYLES
}

const WIDTH = 980
const MARGIN = 24
const TITLE = 64
/** Between boxes of a row; with arrows, there is room for their labels. */
const GAP = 24
const ARROW_GAP = 150
/** Between rows, and of each lane there. */
const ROW_GAP = 26
const LANE = 19
const LINE = 16
/** At least between arrows that are side by side. */
const APART = 22
/** About, of a letter in a box and of one beside an arrow. */
const LETTER = 6.3
const LABEL_LETTER = 5.8

const STYLES = {
  exit: { words: 'VM exits', colour: '#1f5f99', dash: '' },
  need: { words: 'needs', colour: '#9a3b26', dash: ' stroke-dasharray="4 3"' },
} as const
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

type Side = 'left' | 'right' | 'top' | 'bottom'

const LEFT = ['left', 'right'] as const
const RIGHT = ['right', 'left'] as const
const DOWN = ['bottom', 'top'] as const
const UP = ['top', 'bottom'] as const
const AROUND = ['bottom', 'bottom'] as const

interface Placed {
  readonly box: Box
  readonly row: number
  readonly column: number
  readonly lines: readonly string[]
  readonly x: number
  y: number
  readonly width: number
  height: number
}

/** An arrow with its ends, where they are on the sides, and its lane. */
interface Route {
  readonly arrow: Arrow
  readonly from: Placed
  readonly to: Placed
  readonly sides: readonly [Side, Side]
  /** The row above the gap that it turns in; of arrows from a box to the next none. */
  readonly gap: number | undefined
  start: number
  end: number
  lane: number
}

export function draw(title: string, rows: readonly (readonly Box[])[], arrows: readonly Arrow[]): string {
  const placed = rows.flatMap((row, index) => placeRow(row, index, arrows))
  const routes = routesOf(placed, merged(arrows))
  spread(placed, routes)
  const laneCounts = assignLanes(routes, rows.length)
  const height = stack(placed, routes, laneCounts)
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" font-family="system-ui, sans-serif">`,
    `<defs>${Object.entries(STYLES).map(([kind, { colour }]) => `<marker id="${kind}" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto"><path d="M0 0 8 4 0 8z" fill="${colour}"/></marker>`).join('')}</defs>`,
    `<rect width="${WIDTH}" height="${height}" fill="#ffffff"/>`,
    `<text x="${MARGIN}" y="34" font-size="18" font-weight="600">${escape(title)}</text>`,
    ...Object.entries(STYLES).map(([kind, { words, colour, dash }], index) => {
      const x = WIDTH - MARGIN - 200 + index * 110
      return `<path d="M${x} 30h24" stroke="${colour}" stroke-width="1.4"${dash} marker-end="url(#${kind})"/><text x="${x + 30}" y="34" font-size="11.5" fill="${colour}">${words}</text>`
    }),
    // One that passes a row goes behind its boxes.
    ...routes.map((route) => lineSvg(route, placed)),
    ...placed.map(boxSvg),
    ...routes.map((route) => labelSvg(route, placed)),
    '</svg>\n',
  ].join('\n')
}

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

/** One arrow for all that have the same ends and kind. */
function merged(arrows: readonly Arrow[]): Arrow[] {
  const groups = Map.groupBy(arrows, ({ from, to, kind }) => `${kind} ${from.id} ${to.id}`)
  return [...groups.values()].map((group) => ({ ...group[0]!, label: group.map(({ label }) => label).join(', ') }))
}

function placeRow(row: readonly Box[], index: number, arrows: readonly Arrow[]): Placed[] {
  const within = arrows.some(({ from, to }) => row.includes(from) && row.includes(to))
  const gap = within ? ARROW_GAP : GAP
  const width = (WIDTH - 2 * MARGIN - gap * (row.length - 1)) / row.length
  const lines = row.map(({ text }) => text.flatMap((one) => wrap(one, Math.max(4, Math.floor((width - 20) / LETTER)))))
  const height = 34 + LINE * Math.max(...lines.map(({ length }) => length))
  return row.map((box, column) => ({ box, row: index, column, lines: lines[column]!, x: MARGIN + column * (width + gap), y: 0, width, height }))
}

function routesOf(placed: readonly Placed[], arrows: readonly Arrow[]): Route[] {
  const of = (box: Box): Placed => placed.find((one) => one.box === box)!
  return arrows.map((arrow) => {
    const [from, to] = [of(arrow.from), of(arrow.to)]
    // Within a row, past boxes that are between: below them.
    const beside = from.row === to.row && Math.abs(from.column - to.column) === 1
    const sides = beside ? (to.x < from.x ? LEFT : RIGHT) : from.row === to.row ? AROUND : from.row < to.row ? DOWN : UP
    const gap = beside ? undefined : sides === UP ? from.row - 1 : from.row
    return { arrow, from, to, sides, gap, start: 0, end: 0, lane: 0 }
  })
}

const middle = ({ x, width }: Placed): number => x + width / 2

/** Ends are evenly apart on each side of a box, in the order of where they lead. */
function spread(placed: readonly Placed[], routes: readonly Route[]): void {
  for (const box of placed) {
    for (const side of ['top', 'bottom'] as const) {
      const ends = routes.flatMap((route) => [
        ...(route.from === box && route.sides[0] === side ? [{ route, key: 'start' as const, other: route.to }] : []),
        ...(route.to === box && route.sides[1] === side ? [{ route, key: 'end' as const, other: route.from }] : []),
      ])
      ends.sort((a, b) => middle(a.other) - middle(b.other))
      for (const [index, { route, key }] of ends.entries()) route[key] = box.x + (box.width * (index + 1)) / (ends.length + 1)
    }
  }
  // Verticals of different arrows in one gap are not on each other.
  const taken = new Map<number, number[]>()
  for (const route of routes) {
    if (route.gap === undefined) continue
    const used = taken.get(route.gap) ?? []
    taken.set(route.gap, used)
    for (const key of ['start', 'end'] as const) {
      while (used.some((x) => Math.abs(x - route[key]) < 8)) route[key] += 9
      if (key === 'end' && Math.abs(route.end - route.start) < 10) route.end = route.start
      used.push(route[key])
    }
  }
}

/** The longest way first, so that shorter ones turn nearer to the row below. Returns the count of lanes in each gap. */
function assignLanes(routes: readonly Route[], rows: number): number[] {
  const counts = Array.from({ length: rows }, () => 0)
  const length = ({ start, end }: Route): number => Math.abs(end - start)
  for (const route of routes.toSorted((a, b) => length(b) - length(a))) if (route.gap !== undefined) route.lane = counts[route.gap]!++
  return counts
}

/** Sets heights; returns that of the drawing. */
function stack(placed: readonly Placed[], routes: readonly Route[], laneCounts: readonly number[]): number {
  let y = TITLE
  for (const [row, lanes] of laneCounts.entries()) {
    const boxes = placed.filter((one) => one.row === row)
    const beside = routes.filter(({ from, gap }) => gap === undefined && from.row === row).length
    const height = Math.max(boxes[0]!.height, (beside + 1) * APART)
    for (const box of boxes) Object.assign(box, { y, height })
    y += height + ROW_GAP + lanes * LANE
  }
  // An arrow beside boxes: which it is of those between the same two.
  const used = new Map<string, number>()
  const key = ({ from, to }: Route): string => [from, to].map(({ box }) => box.id).sort().join()
  const all = Map.groupBy(routes.filter(({ gap }) => gap === undefined), key)
  for (const route of [...all.values()].flat()) {
    const at = (used.get(key(route)) ?? 0) + 1
    used.set(key(route), at)
    route.start = route.end = route.from.y + (route.from.height * at) / (all.get(key(route))!.length + 1)
  }
  return y - ROW_GAP + MARGIN
}

interface Points {
  readonly x1: number
  readonly y1: number
  readonly x2: number
  readonly y2: number
  /** Of the lane. */
  readonly turn: number
}

function pointsOf({ from, to, sides, gap, start, end, lane }: Route, placed: readonly Placed[]): Points {
  const edge = (one: Placed, side: Side): number => (side === 'left' ? one.x : side === 'right' ? one.x + one.width : side === 'top' ? one.y : one.y + one.height)
  if (gap === undefined) return { x1: edge(from, sides[0]), y1: start, x2: edge(to, sides[1]), y2: end, turn: start }
  const above = placed.find(({ row }) => row === gap)!
  return { x1: start, y1: edge(from, sides[0]), x2: end, y2: edge(to, sides[1]), turn: above.y + above.height + ROW_GAP / 2 + (lane + 0.5) * LANE }
}

function lineSvg(route: Route, placed: readonly Placed[]): string {
  const { x1, y1, x2, y2, turn } = pointsOf(route, placed)
  const { colour, dash } = STYLES[route.arrow.kind]
  const path = route.gap === undefined ? `M${x1} ${y1}H${x2}` : `M${x1} ${y1}V${turn}H${x2}V${y2}`
  return `<path d="${path}" fill="none" stroke="${colour}" stroke-width="1.4" stroke-linejoin="round"${dash} marker-end="url(#${route.arrow.kind})"/>`
}

/** On its arrow: over the part between boxes or along the lane, or beside it where that is too short. */
function labelSvg(route: Route, placed: readonly Placed[]): string {
  const { label, kind } = route.arrow
  if (label === '') return ''
  const { x1, x2, turn } = pointsOf(route, placed)
  const width = label.length * LABEL_LETTER
  const right = Math.max(x1, x2) + 6
  const [x, y, anchor] =
    Math.abs(x2 - x1) > width + 16
      ? [(x1 + x2) / 2, turn - 4, ' text-anchor="middle"']
      : right + width < WIDTH - MARGIN
        ? [right, turn + 3, '']
        : [Math.min(x1, x2) - 6, turn + 3, ' text-anchor="end"']
  return `<text x="${x}" y="${y}" font-size="10.5" fill="${STYLES[kind].colour}" stroke="#fff" stroke-width="3" paint-order="stroke"${anchor}>${escape(label)}</text>`
}

function boxSvg({ box: { kind, title }, lines, x, y, width, height }: Placed): string {
  const text = (line: string, index: number): string =>
    `<text x="${x + 10}" y="${y + 40 + index * LINE}" font-size="11.5" fill="#444">${escape(line)}</text>`
  return [
    `<g><rect x="${x}" y="${y}" width="${width}" height="${height}" rx="6" fill="${FILLS[kind] ?? '#f4f4f4'}" stroke="#777"/>`,
    `<text x="${x + 10}" y="${y + 22}" font-size="13.5" font-weight="600">${escape(title)}</text>`,
    ...lines.map(text),
    '</g>',
  ].join('')
}
