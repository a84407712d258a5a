import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const tool = fileURLToPath(new URL('../../tools/oracle-tiers.ts', import.meta.url))

describe('compiled regions', () => {
  // The long run is the tool's own: --minutes 60, with another seed each night.
  it('pass the verifier, and leave every state as the interpreter does', { timeout: 120_000 }, () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=@nonroot/source', tool, '--cases', '300', '--seed', '1'], { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(stdout).toMatch(/, 0 failures/)
    expect(stdout).toMatch(/[1-9]\d* regions/)
    expect(status).toBe(0)
  })
})
