/** Debian itself, from power-on to its shell. Takes minutes, and the network the first time: NONROOT_DEBIAN=1 npx vitest run src/run/debian.test.ts */

import { spawn } from 'node:child_process'
import { createCipheriv, createHash } from 'node:crypto'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest'
import { command as nonroot, exec, spawnCli } from '../testing/cli.ts'
import { GuestConsole } from '../testing/console.ts'

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
  const noise = createCipheriv('aes-128-ctr', new Uint8Array(16), new Uint8Array(16)).update(new Uint8Array(20e6))
  it.each([
    { what: 'input without a newline', command: ['wc', '-c'], input: 'x', out: '1\n' },
    {
      what: 'what a terminal would act on',
      command: ['od', '-An', '-tx1'],
      input: 'a\x04b\x03\r\x1ac\n',
      out: ' 61 04 62 03 0d 1a 63 0a\n',
    },
    { what: 'a line of 10,000', command: ['wc', '-c'], input: 'x'.repeat(10_000), out: '10000\n' },
    {
      what: 'a million bytes of every kind',
      command: ['cat'],
      input: every,
      out: Buffer.from(every).toString('latin1'),
    },
    { what: '20 MB of noise', command: ['cat'], input: noise, out: noise.toString('latin1') },
    {
      what: 'standard error apart',
      command: ['sh', '-c', 'echo out; echo err >&2; echo out'],
      out: 'out\nout\n',
      err: 'err\n',
    },
    { what: 'a signal', command: ['sh', '-c', 'kill -9 $$'], out: '', status: 137 },
    { what: 'no such program', command: ['nope', 'x'], out: '', err: 'nonroot: nope: not found\n', status: 127 },
    {
      what: 'what is no program',
      command: ['/etc/profile'],
      out: '',
      err: 'nonroot: /etc/profile: permission denied\n',
      status: 126,
    },
    { what: 'a child left behind', command: ['sh', '-c', 'sleep 1000 & echo done'], out: 'done\n' },
    { what: 'an argument of 100,000', command: ['sh', '-c', 'echo ${#1}', 'sh', 'x'.repeat(100_000)], out: '100000\n' },
  ])('a command has its streams: $what', async ({ command: words, input, out, err = '', status = 0 }) => {
    const options = {
      env,
      encoding: 'latin1',
      ...(input === undefined ? {} : { input: { text: input, afterMs: 0 } }),
    } as const
    const result = await spawnCli(['run', '--timeout', '5m', '--', ...words], options)
    // The first makes the image, and says so.
    const said = result.err.replaceAll(/^image: .*\n/gm, '')
    expect({ ...result, out: brief(result.out), err: said }).toEqual({ status, out: brief(out), err })
  })

  it('verifies modules with the SHA instructions of the processor', async () => {
    const words = ['sh', '-c', "grep -A1 '^name *: sha256$' /proc/crypto | sed -n 's/^driver *: //p'; cat /proc/sys/kernel/tainted"]
    expect(await run('--', ...words)).toMatchObject({ status: 0, out: 'sha256-ni\nsha256-ssse3\nsha256-generic\n0\n' })
  })

  it('a guest that restarts is the end of its command', async () => {
    const { status, out, err } = await run('--', 'sh', '-c', 'echo once; exec reboot -f')
    expect([status, out]).toEqual([4, 'once\n'])
    expect(err).toContain('error: the guest was restarted before the command had ended')
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
      // Times, and what the host's collector of garbage has got round to, are the host's.
      const isGuests = ({ unit, name }: { unit: string; name: string }): boolean =>
        (unit !== 'ns' || name === 'vm.guestNs') && !name.endsWith('.modulesCollected')
      return { status, out, counts: metrics.filter(isGuests) }
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

describe.skipIf(!process.env['NONROOT_DEBIAN'])('further commands in a running Debian', { timeout: 300_000 }, () => {
  const runtime = { ...env, NONROOT_RUNTIME: mkdtempSync(join(tmpdir(), 'nr-')) }
  const other = (words: readonly string[], text?: string) =>
    spawnCli(['exec', 'vm0', ...(text === undefined ? [] : ['-i']), '--', ...words], {
      env: runtime,
      ...(text === undefined ? {} : { input: { text, afterMs: 0 } }),
    })
  let guest: GuestConsole
  beforeAll(async () => {
    guest = new GuestConsole(['run', '--timeout', '30m'], runtime)
    await guest.expect(/# /, 280)
  }, 300_000)
  afterAll(() => guest.kill())

  it('ten at once have their own streams', async () => {
    const all = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        other(['sh', '-c', `cat; echo ${index} >&2; exit ${index}`], `${index}`.repeat(50_000)),
      ),
    )
    all.forEach(({ status, out, err }, index) =>
      expect([status, out === `${index}`.repeat(50_000), err.replace(/^waiting .*\n/, '')]).toEqual([
        index,
        true,
        `${index}\n`,
      ]),
    )
  })

  it('a reader that stops stops its writer, and no one else', async () => {
    const [file, ...args] = nonroot
    const reader = spawn(file!, [...args, 'exec', 'vm0', '--', 'yes'], {
      env: { ...process.env, ...runtime },
      stdio: ['ignore', 'pipe', 'inherit'],
    })
    const ended = new Promise((resolve) => reader.on('exit', (status, signal) => resolve(status ?? signal)))
    const written = async () => Number((await other(['sh', '-c', 'sed -n "s/^wchar: //p" /proc/$(pidof yes)/io'])).out)
    await vi.waitFor(async () => expect(await written()).toBeGreaterThan(0), { timeout: 120_000 })
    let before = -1
    let now = await written()
    while (before !== now) [before, now] = [now, await written()]
    // Windows and pipes on the way have some room.
    expect(now).toBeLessThan(2 << 20)
    let heard = 0
    reader.stdout.on('data', (bytes: Buffer) => (heard += bytes.length))
    await vi.waitFor(() => expect(heard).toBeGreaterThan(2 * now), { timeout: 120_000 })
    reader.kill('SIGTERM')
    expect(await ended).toBe(143)
  })

  it('with -t: a terminal of the size of ours, which follows it', async () => {
    const script = `stty size; trap 'stty size; exit 5' WINCH; echo up; while :; do sleep 0.1; done`
    const words = [...nonroot, 'exec', '-t', 'vm0', '--', 'sh', '-c', script].map(
      (word) => `'${word.replaceAll("'", "'\\''")}'`,
    )
    const ours = spawn('script', ['-qec', `stty rows 30 cols 100; echo pty=$(tty); ${words.join(' ')}`, '/dev/null'], {
      env: { ...process.env, ...runtime },
      stdio: ['pipe', 'pipe', 'inherit'],
    })
    const ended = new Promise((resolve) => ours.on('close', resolve))
    let said = ''
    ours.stdout.on('data', (bytes: Buffer) => (said += bytes.toString()))
    await vi.waitFor(() => expect(said).toContain('up'), { timeout: 120_000 })
    await exec('stty', ['-F', /pty=(.*?)\r/.exec(said)![1]!, 'rows', '40', 'cols', '120'])
    expect([await ended, said.replaceAll('\r', '').split('\n').slice(1)]).toEqual([5, ['30 100', 'up', '40 120', '']])
  })

  it('end with the guest', async () => {
    expect(await other(['poweroff', '-f'])).toMatchObject({
      status: 4,
      err: expect.stringContaining('the guest ended before the command had ended') as string,
    })
    expect(await guest.end()).toBe(0)
  })
})

it.skipIf(!process.env['NONROOT_DEBIAN'])('a command in each VM of a fleet', { timeout: 600_000 }, async () => {
  const file = join(mkdtempSync(join(tmpdir(), 'nonroot-fleet-')), 'fleet.yaml')
  const fleet = {
    apiVersion: 'nonroot/v1',
    extends: 'nonroot/stacks/kvm-like.yaml',
    machine: { memory: '128 MiB' },
    vms: [{ name: 'one' }, { name: 'two', machine: { vcpus: 2 } }, { name: 'three', machine: { vcpus: 3 } }],
  }
  writeFileSync(file, JSON.stringify(fleet))
  const script = 'n=$(grep -c ^processor /proc/cpuinfo); echo $n; echo err $n >&2; exit $((n-1))'
  const { status, out, err } = await run(file, '--', 'sh', '-c', script)
  expect(out.split('\n').toSorted()).toEqual(['', 'one  | 1', 'three| 3', 'two  | 2'])
  expect(
    err
      .split('\n')
      .filter((line) => line.includes('|'))
      .toSorted(),
  ).toEqual(['one  | err 1', 'three| err 3', 'two  | err 2'])
  // That of the first in the file that did not give 0.
  expect(status).toBe(1)
})
