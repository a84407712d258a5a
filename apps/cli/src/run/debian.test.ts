/** Debian itself, from power-on to its shell. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/debian.test.ts */

import { createHash } from 'node:crypto'
import { mkdtempSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, expect, it, vi } from 'vitest'
import { exec, spawnCli } from '../testing/cli.ts'

const env = { NONROOT_CACHE: process.env['NONROOT_CACHE'] ?? join(tmpdir(), 'nonroot-image-tests') }
const run = (...args: string[]) => spawnCli(['run', '--timeout', '5m', ...args], { env })
const type = (text: string, afterMs: number, ...args: string[]) =>
  spawnCli(['run', '--timeout', '5m', ...args], { env, input: { text, afterMs } })
/** A report of a million bytes that differ is of no use. */
const brief = (text: string): string => (text.length > 1000 ? createHash('sha256').update(text).digest('hex') : text)
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

  const every = Uint8Array.from({ length: 1 << 20 }, (_, index) => (index * 7 + (index >> 8)) & 0xff)
  it.each([
    { what: 'input without a newline', command: ['wc', '-c'], input: 'x', out: '1\n' },
    { what: 'what a terminal would act on', command: ['od', '-An', '-tx1'], input: 'a\x04b\x03\r\x1ac\n', out: ' 61 04 62 03 0d 1a 63 0a\n' },
    { what: 'a line of 10,000', command: ['wc', '-c'], input: 'x'.repeat(10_000), out: '10000\n' },
    { what: 'a million bytes of every kind', command: ['cat'], input: every, out: Buffer.from(every).toString('latin1') },
    { what: 'standard error apart', command: ['sh', '-c', 'echo out; echo err >&2; echo out'], out: 'out\nout\n', err: 'err\n' },
    { what: 'a signal', command: ['sh', '-c', 'kill -9 $$'], out: '', status: 137 },
    { what: 'no such program', command: ['nope', 'x'], out: '', err: 'nonroot: nope: not found\n', status: 127 },
    { what: 'what is no program', command: ['/etc/profile'], out: '', err: 'nonroot: /etc/profile: permission denied\n', status: 126 },
    { what: 'a child left behind', command: ['sh', '-c', 'sleep 1000 & echo done'], out: 'done\n' },
    { what: 'an argument of 100,000', command: ['sh', '-c', 'echo ${#1}', 'sh', 'x'.repeat(100_000)], out: '100000\n' },
  ])('a command has its streams: $what', async ({ command: words, input, out, err = '', status = 0 }) => {
    const options = { env, encoding: 'latin1', ...(input === undefined ? {} : { input: { text: input, afterMs: 0 } }) } as const
    const result = await spawnCli(['run', '--timeout', '5m', '--', ...words], options)
    // The first makes the image, and says so.
    const said = result.err.replaceAll(/^image: .*\n/gm, '')
    expect({ ...result, out: brief(result.out), err: said }).toEqual({ status, out: brief(out), err })
  })

  it('a guest that restarts is the end of its command', async () => {
    const { status, out, err } = await run('--', 'sh', '-c', 'echo once; exec reboot -f')
    expect([status, out]).toEqual([4, 'once\n'])
    expect(err).toContain('error: the guest was restarted before the command had ended')
  })

  it('runs further commands meanwhile, each with its own streams', async () => {
    const runtime = { ...env, NONROOT_RUNTIME: mkdtempSync(join(tmpdir(), 'nr-')) }
    const vm = spawnCli(['run', '--timeout', '5m'], { env: runtime, input: { text: '', afterMs: 240_000 } })
    const other = (words: readonly string[], text?: string) =>
      spawnCli(['exec', 'vm0', ...(text === undefined ? [] : ['-i']), '--', ...words], { env: runtime, ...(text === undefined ? {} : { input: { text, afterMs: 0 } }) })
    await vi.waitFor(async () => expect((await spawnCli(['ps'], { env: runtime })).out).toContain('running'), { timeout: 200_000, interval: 1000 })
    const all = await Promise.all(
      Array.from({ length: 10 }, (_, index) => other(['sh', '-c', `cat; echo ${index} >&2; exit ${index}`], `${index}`.repeat(50_000))),
    )
    all.forEach(({ status, out, err }, index) =>
      expect([status, out === `${index}`.repeat(50_000), err.replace(/^waiting .*\n/, '')]).toEqual([index, true, `${index}\n`]),
    )
    expect(await other(['poweroff', '-f'])).toMatchObject({ status: 4, err: expect.stringContaining('the guest ended before the command had ended') as string })
    expect((await vm).status).toBe(0)
  })

  it('a reader that goes away ends a command that never stops writing', async () => {
    const head = `${process.execPath} ${join(import.meta.dirname, '../../bin/nonroot.js')} run --timeout 5m -- yes | head -c 200000 | wc -c`
    expect(await exec('sh', ['-c', head], { env })).toMatchObject({ status: 0, out: '200000\n' })
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
