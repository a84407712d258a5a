/** What came out: ratios, their geometric mean, and the table. Ratios are to the first machine; above 1 is faster than it. */
import type { Machine } from './machine.ts'

export interface Row {
  readonly test: string
  /** By machine, in ms. */
  readonly times: readonly (number | undefined)[]
  /** By machine; undefined where either time is missing. */
  readonly ratios: readonly (number | undefined)[]
  readonly wrong: readonly boolean[]
}

/** Not mechanisms, and so not in the mean. */
const WHOLES: ReadonlySet<string> = new Set(['boot', 'all'])

export function rowsOf(machines: readonly Machine[], expected: Readonly<Record<string, string>>): Row[] {
  const tests = [...new Set(machines.flatMap(({ times }) => Object.keys(times)))]
  return tests.map((test) => {
    const times = machines.map((machine) => machine.times[test])
    const right = expected[test] ?? machines[0]?.checks[test]
    return {
      test,
      times,
      ratios: times.map((time) => (time === undefined || times[0] === undefined ? undefined : times[0] / time)),
      wrong: machines.map(
        ({ checks }) =>
          isFailed(checks[test]) || (right !== undefined && checks[test] !== undefined && checks[test] !== right),
      ),
    }
  })
}

/** What a guest says of a program that did not succeed. */
const isFailed = (check: string | undefined): boolean => check?.startsWith('failed') === true

/** Over the mechanisms; undefined where there is none. */
export function geometricMean(rows: readonly Row[], machine: number): number | undefined {
  const logs = rows
    .filter(({ test }) => !WHOLES.has(test))
    .flatMap(({ ratios }) => (ratios[machine] === undefined ? [] : [Math.log(ratios[machine])]))
  return logs.length ? Math.exp(logs.reduce((a, b) => a + b, 0) / logs.length) : undefined
}

export function tableText(machines: readonly Machine[], rows: readonly Row[]): string {
  const base = machines[0]!.name
  const others = machines.slice(1)
  const cell = (text: string): string => text.padStart(16)
  const line = (head: string, cells: readonly string[]): string => head.padEnd(12) + cells.map(cell).join('')
  const lines = [line('ms', [...machines.map(({ name }) => name), ...others.map(({ name }) => `${name}/${base}`)])]
  for (const { test, times, ratios, wrong } of rows) {
    lines.push(
      line(test, [
        ...times.map((time, n) => (time === undefined ? '-' : time.toFixed(0) + (wrong[n] ? ' WRONG' : ''))),
        ...ratios.slice(1).map((ratio) => ratio?.toFixed(2) ?? '-'),
      ]),
    )
  }
  for (const [n, { name }] of machines.entries()) {
    const mean = n > 0 ? geometricMean(rows, n) : undefined
    if (mean !== undefined) lines.push(`geometric mean of ${name}/${base}: ${mean.toFixed(3)}`)
  }
  for (const { name, problem } of machines) if (problem) lines.push(`PROBLEM ${name}: ${problem}`)
  return lines.join('\n')
}
