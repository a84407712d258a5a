/** Debian itself, from power-on to its shell. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/debian.test.ts */

import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it } from 'vitest'
import { spawnCli } from '../testing/cli.ts'

const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
const run = (...args: string[]) => spawnCli(['run', '--timeout', '5m', ...args], { env })
const type = (text: string, afterMs: number, ...args: string[]) =>
  spawnCli(['run', '--timeout', '5m', ...args], { env, input: { text, afterMs } })
const command = ['--', 'sh', '-c', 'uname -s; grep -c ^processor /proc/cpuinfo; exit 7']

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

  const repeats = ['--set', 'machine.clock=deterministic', '--stats=json']
  it.each([
    { what: 'no input', once: () => run(...repeats, '--', 'sh', '-c', 'dmesg') },
    { what: 'a script', once: (ms: number) => type('dmesg\ncat /proc/interrupts\nsleep 2\n', ms, ...repeats) },
    { what: 'input of a command', once: (ms: number) => type('1\n2\n', ms, ...repeats, '--', 'sh', '-c', 'dmesg; wc') },
  ])('gives the same console and counts twice with a deterministic clock: $what', async ({ once: play }) => {
    const once = async (ms: number) => {
      const { status, out, err } = await play(ms)
      const { metrics } = JSON.parse(err.slice(err.indexOf('{'))) as {
        metrics: { unit: string; name: string; value: number }[]
      }
      return { status, out, counts: metrics.filter(({ unit, name }) => unit !== 'ns' || name === 'vm.guestNs') }
    }
    const first = await once(0)
    expect(first.status).toBe(0)
    expect(first.out).toContain('Linux version')
    expect(first.out).not.toMatch(/BUG:|WARNING:|unexpected|hung task/)
    expect(await once(1500)).toEqual(first)
  })

  it('is heard when it panics', async () => {
    const { status, err } = await run('--cmdline', 'console=ttyS0 rdinit=/nope')
    expect(status).toBe(4)
    expect(err).toContain('Kernel panic - not syncing')
  })
})
