import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const packageFile = (path: string): string => fileURLToPath(new URL(`../../${path}`, import.meta.url))

/** The oracle's own answer: differences in full where there are any. */
function replay(file: string): { status: number | null; output: string } {
  const { status, stdout, stderr } = spawnSync(
    process.execPath,
    ['--conditions=@nonroot/source', packageFile('tools/oracle-native.ts'), '--replay', packageFile(`tools/native/${file}`)],
    { encoding: 'utf8', maxBuffer: 1 << 26 },
  )
  return { status, output: stdout + stderr }
}

describe('single instructions as a real processor ran them', () => {
  it.each(['vectors-64.bin', 'vectors-32.bin'])('%s', { timeout: 120_000 }, (file) => {
    const { status, output } = replay(file)
    expect(output).toMatch(/ 0 differences/)
    expect(status).toBe(0)
    // Recordings age as rows and generators change; most of one must still apply.
    const stale = Number(/(\d+) recorded instructions/.exec(output)?.[1] ?? 0)
    expect(stale, 'record again with --record').toBeLessThan(150)
  })
})
