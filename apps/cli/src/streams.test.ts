/** Output that cannot be written: a full device, a reader that has gone. One line, a status, no stack trace. */

import { spawn } from 'node:child_process'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { describe, expect, it } from 'vitest'
import { command, exec, folderWith, fixtures } from './testing/cli.ts'

const bin = fileURLToPath(new URL('../bin/nonroot.js', import.meta.url))
const hello = fileURLToPath(new URL('../../../guests/hello/hello.elf', import.meta.url))
const kvmLike = fileURLToPath(new URL('../../../stacks/kvm-like.yaml', import.meta.url))
const TRUSTED = 'plugins are trusted: each may do whatever this process may\n'
const FULL = 'error: cannot write to standard output: no space left on device\n'

/** By a shell, which opens the device. */
const toFull = (words: readonly string[], redirect: string) => exec('sh', ['-c', `"$@" ${redirect}`, 'sh', ...words])

describe.skipIf(!existsSync('/dev/full'))('a full device', { timeout: 120_000 }, () => {
  it.each([
    ['--help'],
    ['config', 'schema'],
    ['config', 'check', kvmLike],
    ['stack', 'show', kvmLike],
    ['stack', 'show', kvmLike, '--json'],
    ['plugins'],
    ['jit', 'dump', '--bytes', '90'],
    ['run', '--kernel', hello],
    ['config', 'check', join(fixtures, 'none.yaml'), '--json'],
  ])('%s %s %s', async (...argv) => {
    expect(await toFull([...command, ...argv], '>/dev/full')).toEqual({
      status: 3,
      out: '',
      err: argv[0] === 'plugins' ? TRUSTED + FULL : FULL,
    })
  })

  it('as standard error takes nothing away', async () => {
    const { status, out } = await toFull([...command, 'run', '--kernel', hello, '--stats'], '2>/dev/full')
    expect([status, out]).toEqual([33, 'hello\n'])
  })

  it('for the version', async () => {
    const { status, err } = await toFull([process.execPath, bin, '--version'], '>/dev/full')
    expect(status).toBe(3)
    expect(err).toMatch(/^error: cannot write to standard output: .*no space left on device.*\n$/)
  })

  it('for a trace', async () => {
    const { status, out, err } = await exec(command[0]!, [
      ...command.slice(1),
      'run',
      '--kernel',
      hello,
      '--trace',
      '/dev/full',
    ])
    expect([status, out]).toEqual([3, 'hello\n'])
    expect(err).toMatch(/^error: cannot write the trace \/dev\/full: .*\n$/)
  })
})

it('a reader that has gone ends a command quietly', { timeout: 60_000 }, async () => {
  const { folder, remove } = await folderWith({})
  try {
    const child = spawn(command[0]!, [...command.slice(1), 'stack', 'show', kvmLike], {
      cwd: folder,
      stdio: ['ignore', 'pipe', 'pipe'],
    })
    child.stdout.destroy()
    let err = ''
    child.stderr.on('data', (chunk) => (err += chunk))
    const status = await new Promise((resolve) => child.on('close', resolve))
    expect([status, err]).toEqual([141, ''])
  } finally {
    remove()
  }
})
