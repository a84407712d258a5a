import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'

const run = (tool: string, ...args: string[]) =>
  spawnSync(process.execPath, ['--conditions=@nonroot/source', fileURLToPath(new URL(`../../tools/${tool}`, import.meta.url)), ...args], { encoding: 'utf8' })

describe('compiled regions', () => {
  // The long run is the tool's own: --minutes 60, with another seed each night.
  it('pass the verifier, and leave every state as the interpreter does', { timeout: 120_000 }, () => {
    const { status, stdout, stderr } = run('oracle-tiers.ts', '--cases', '300', '--seed', '1')
    expect(stderr).toBe('')
    expect(stdout).toMatch(/, 0 failures/)
    expect(stdout).toMatch(/[1-9]\d* regions/)
    expect(status).toBe(0)
  })

  // Ten million of them: npm run fuzz:tiers -- --sequences 10000000
  it('leave the registers, flags and memory of short sequences as the interpreter does', { timeout: 120_000 }, () => {
    const { status, stdout, stderr } = run('fuzz-tiers.ts', '--sequences', '600', '--seed', '1', '--json')
    expect(stderr).toBe('')
    expect(JSON.parse(stdout)).toMatchObject({ sequences: 600, differences: 0, failed: [] })
    // Most of what runs is compiled.
    const { instructions, inRegions } = JSON.parse(stdout) as { instructions: number; inRegions: number }
    expect(inRegions).toBeGreaterThan(instructions / 2)
    expect(status).toBe(0)
  })
})
