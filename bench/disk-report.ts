/** What the disk benchmark found, as tables in Markdown. */
import type { DiskResult } from './disk-run.ts'

export const TESTS = [
  { test: 'random-read', title: 'Read 4 KiB at random, 16 in flight' },
  { test: 'random-write', title: 'Write 4 KiB at random, 16 in flight' },
  { test: 'sequential-read', title: 'Read 1 MiB in order' },
  { test: 'cached-read', title: "Read 1 MiB in order through the guest's page cache" },
  { test: 'sequential-write', title: 'Write 1 MiB in order' },
] as const

const cell = (value: number | undefined, digits: number): string => value?.toFixed(digits) ?? '–'

export function diskTables(results: readonly DiskResult[]): string {
  return TESTS.map(({ test, title }) =>
    [
      `| ${title} | MiB/s | exits/MiB | CPU ms/MiB |`,
      '|---|---:|---:|---:|',
      ...results.map(({ says, tests }) => {
        const of = tests[test]
        return `| ${says} | ${cell(of?.rate, 1)} | ${cell(of?.exits, 1)} | ${cell(of?.cpuMs, 2)} |`
      }),
    ].join('\n'),
  ).join('\n\n')
}
