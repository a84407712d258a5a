/** The disk benchmark as bars in SVG: a row of panels for each test, one panel each for throughput, exits and processor time. */
import { TESTS } from './disk-report.ts'
import type { DiskResult, DiskTest } from './disk-run.ts'

const COLOURS = ['#9498a0', '#efb118', '#ff725c', '#a1c9f4', '#4269d0', '#c9e7a5', '#3ca951']
const PANEL = 250
const LABELS = 190
const BAR = 15
const GAP = 46
const TOP = 34

const METRICS: readonly { title: string; of: (test: DiskTest) => number | undefined; digits: number }[] = [
  { title: 'MiB/s', of: ({ rate }) => rate, digits: 0 },
  { title: 'VM exits for a MiB', of: ({ exits }) => exits, digits: 1 },
  { title: 'CPU ms for a MiB', of: ({ cpuMs }) => cpuMs, digits: 2 },
]
export function diskPlot(results: readonly DiskResult[]): string {
  const height = results.length * BAR + GAP
  const width = LABELS + METRICS.length * PANEL + 20
  const parts = [
    `<svg xmlns="http://www.w3.org/2000/svg" width="${width}" height="${TOP + TESTS.length * height}" font-family="sans-serif" font-size="11">`,
    '<rect width="100%" height="100%" fill="white"/>',
    '<text x="10" y="20" font-size="14">One disk image under each of our devices, and under QEMU TCG</text>',
  ]
  for (const [row, { test, title: heading }] of TESTS.entries()) {
    const top = TOP + row * height + 30
    parts.push(`<text x="10" y="${top - 12}" font-weight="bold">${heading}</text>`)
    for (const [index, { says }] of results.entries())
      parts.push(`<text x="${LABELS - 8}" y="${top + index * BAR + 11}" text-anchor="end">${says}</text>`)
    for (const [column, { title, of, digits }] of METRICS.entries()) {
      const left = LABELS + column * PANEL
      const found = results.map(({ tests: measured }) => (measured[test] ? of(measured[test]) : undefined))
      const most = Math.max(...found.map((value) => value ?? 0), Number.MIN_VALUE)
      parts.push(`<text x="${left}" y="${top - 12}" fill="#555">${title}</text>`)
      for (const [index, value] of found.entries()) {
        const y = top + index * BAR
        const length = ((value ?? 0) / most) * (PANEL - 70)
        const colour = COLOURS[index % COLOURS.length]
        parts.push(
          `<rect x="${left}" y="${y}" width="${length.toFixed(1)}" height="${BAR - 2}" fill="${colour}"/>`,
          `<text x="${(left + length + 4).toFixed(1)}" y="${y + 11}">${value === undefined ? 'not counted' : value.toFixed(digits)}</text>`,
        )
      }
      parts.push(`<line x1="${left}" y1="${top - 4}" x2="${left}" y2="${top + results.length * BAR}" stroke="#333"/>`)
    }
  }
  return `${[...parts, '</svg>'].join('\n')}\n`
}
