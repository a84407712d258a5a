/** Debian itself, from power-on to its shell. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/debian.test.ts */

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'

const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
const run = (...args: string[]) => spawnCli(['run', '--timeout', '5m', ...args], { env })
const command = ['--', 'sh', '-c', 'uname -s; grep -c processor /proc/cpuinfo; exit 7']

describe.skipIf(!process.env['NONROOT_DEBIAN'])('Debian', { timeout: 600_000 }, () => {
  it.each([
    [],
    ['--memory', '128M'],
    ['--memory', '3G'],
    ['--set', 'stack.paging.strategy=shadow'],
    ['--set', 'stack.abi.strategy=bare'],
  ])('runs a command %s %s', async (...args) => {
    expect(await run(...args, ...command)).toMatchObject({ status: 7, out: 'Linux\n1\n' })
  })

  it('gives the same console and counts twice with a deterministic clock', async () => {
    const once = async () => {
      const { status, out, err } = await run(
        '--set',
        'machine.clock=deterministic',
        '--stats=json',
        '--',
        'sh',
        '-c',
        'dmesg',
      )
      const { metrics } = JSON.parse(err.slice(err.indexOf('{'))) as {
        metrics: { unit: string; name: string; value: number }[]
      }
      return { status, out, counts: metrics.filter(({ unit, name }) => unit !== 'ns' || name === 'vm.guestNs') }
    }
    const first = await once()
    expect(first.status).toBe(0)
    expect(first.out).not.toMatch(/BUG:|WARNING:|unexpected|hung task/)
    expect(await once()).toEqual(first)
  })

  it('is heard when it panics', async () => {
    const { status, err } = await run('--cmdline', 'console=ttyS0 rdinit=/nope')
    expect(status).toBe(4)
    expect(err).toContain('Kernel panic - not syncing')
  })
})
