/** The ratios as a bar chart in SVG: one group of bars a test, on a logarithmic scale that starts at 1. */
import type { Machine } from './machine.ts'
import { geometricMean, type Row } from './report.ts'

const COLOURS = ['#4269d0', '#efb118', '#ff725c', '#6cc5b0']
const LABEL = 110
const WIDTH = 520
const BAR = 14
const GAP = 10
const TOP = 50

const escape = (text: string): string => text.replaceAll('&', '&amp;').replaceAll('<', '&lt;')

/** Undefined where there is no second machine to compare. */
export function plot(machines: readonly Machine[], rows: readonly Row[]): string | undefined {
  const others = machines.slice(1)
  const mean: Row = { test: 'mean', times: [], wrong: [], ratios: machines.map((_, n) => geometricMean(rows, n)) }
  const shown = [...rows, mean].filter(({ ratios }) => ratios.slice(1).some((ratio) => ratio !== undefined))
  if (!others.length || !shown.length) return undefined
  const logs = shown
    .flatMap(({ ratios }) => ratios.slice(1))
    .flatMap((ratio) => (ratio === undefined ? [] : [Math.log10(ratio)]))
  // Whole decades, so that the ticks are round.
  const from = Math.min(-1, Math.floor(Math.min(...logs)))
  const to = Math.max(1, Math.ceil(Math.max(...logs)))
  const x = (log: number): number => LABEL + ((log - from) / (to - from)) * WIDTH
  const group = others.length * BAR + GAP
  const bottom = TOP + shown.length * group
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${LABEL + WIDTH + 60}" height="${bottom + 30}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="white"/>',
    `<text x="${LABEL}" y="18" font-size="13">Speed relative to ${escape(machines[0]!.name)} (right of the line: faster)</text>`,
  ]
  for (const [n, { name }] of others.entries()) {
    parts.push(
      `<rect x="${LABEL + 130 * n}" y="26" width="10" height="10" fill="${colour(n)}"/>`,
      `<text x="${LABEL + 14 + 130 * n}" y="35">${escape(name)}</text>`,
    )
  }
  for (let decade = from; decade <= to; decade++) {
    const at = x(decade).toFixed(1)
    const [stroke, width] = decade === 0 ? ['#333', 1.5] : ['#ddd', 1]
    parts.push(
      `<line x1="${at}" y1="${TOP - 8}" x2="${at}" y2="${bottom}" stroke="${stroke}" stroke-width="${width}"/>`,
      `<text x="${at}" y="${bottom + 16}" text-anchor="middle">${Number((10 ** decade).toPrecision(1))}</text>`,
    )
  }
  for (const [row, { test, ratios }] of shown.entries()) {
    const top = TOP + row * group
    const weight = test === 'mean' ? ' font-weight="bold"' : ''
    parts.push(
      `<text x="${LABEL - 8}" y="${top + (others.length * BAR) / 2 + 4}" text-anchor="end"${weight}>${escape(test)}</text>`,
    )
    for (const [n, ratio] of ratios.slice(1).entries()) {
      if (ratio === undefined) continue
      const end = x(Math.log10(ratio))
      const y = top + n * BAR
      parts.push(
        `<rect x="${Math.min(x(0), end).toFixed(1)}" y="${y}" width="${Math.abs(end - x(0)).toFixed(1)}" height="${BAR - 2}" fill="${colour(n)}"/>`,
        `<text x="${(end + (ratio < 1 ? -4 : 4)).toFixed(1)}" y="${y + BAR - 4}" text-anchor="${ratio < 1 ? 'end' : 'start'}"${weight}>${ratio.toFixed(2)}</text>`,
      )
    }
  }
  return `${[...parts, '</svg>'].join('\n')}\n`
}

const colour = (n: number): string => COLOURS[n % COLOURS.length]!
