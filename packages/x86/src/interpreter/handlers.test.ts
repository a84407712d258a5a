import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const tool = fileURLToPath(new URL('../../tools/oracle-evaluator.ts', import.meta.url))

describe('the handlers of every row', () => {
  // The long run is the tool's own: --encodings 40 --states 20.
  it('pass the verifier, and do in WebAssembly what the evaluator says', { timeout: 120_000 }, () => {
    const { status, stdout, stderr } = spawnSync(process.execPath, ['--conditions=@nonroot/source', tool, '--encodings', '1', '--states', '1'], { encoding: 'utf8' })
    expect(stderr).toBe('')
    expect(stdout).toMatch(/, 0 problems/)
    expect(status).toBe(0)
  })
})
