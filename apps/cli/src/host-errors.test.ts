/** What a host refuses: one clear error each, status 3, no stack trace, and no word of a bug. */

import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { afterAll, describe, expect, it } from 'vitest'
import { cli, spawnCli, stackTrace } from './testing/cli.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-host-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))
const aFolder = join(folder, 'folder')
mkdirSync(aFolder)
const aFile = join(folder, 'file')
writeFileSync(aFile, 'x')
/** A path through a file. */
const below = join(aFile, 'below')
const full = '/dev/full'
const hello = fileURLToPath(new URL('../../../guests/hello/hello.elf', import.meta.url))
const stack = fileURLToPath(new URL('../../../stacks/kvm-like.yaml', import.meta.url))
const fleet = fileURLToPath(new URL('../../../examples/fleet.yaml', import.meta.url))
const run = ['run', '--memory', '16M', '--kernel', hello]

interface Refusal {
  readonly what: string
  readonly args: readonly string[]
  readonly says: RegExp
  readonly env?: NodeJS.ProcessEnv
}

/** Those before anything runs, in this process. */
const before: Refusal[] = [
  { what: 'a folder as a disk', args: [...run, '--disk', aFolder], says: /cannot open the disk image .*folder: it is a folder/ },
  { what: 'a disk that is not there', args: [...run, '--disk', below], says: /cannot open the disk image .*below: / },
  { what: 'a trace in a folder', args: [...run, '--trace', aFolder], says: /cannot write the trace/ },
  { what: 'logs below a file', args: ['run', fleet, '--logs', below], says: /cannot make the folder .*below: not a directory/ },
  { what: 'a cache below a file', args: ['image', 'debian'], env: { NONROOT_CACHE: below }, says: /cannot open .*below.*: not a directory/ },
  // Node's own way to make folders would try for ever.
  { what: 'a cache below /proc', args: ['image', 'debian'], env: { NONROOT_CACHE: '/proc/nonroot' }, says: /cannot make the folder \/proc\/nonroot: no such file/ },
  { what: 'logs below /proc', args: ['run', fleet, '--logs', '/proc/nonroot/logs'], says: /cannot make the folder \/proc\/nonroot: no such file/ },
  { what: 'a new disk below a file', args: ['image', 'disk', '--from', aFolder, '--size', '16M', below], says: /cannot be made/ },
  { what: 'a source that is not there', args: ['image', 'disk', '--from', join(folder, 'nope'), '--size', '16M', join(folder, 'a.img')], says: /cannot read .*nope: there is no such file or folder/ },
  { what: 'a folder as code', args: ['jit', 'dump', aFolder], says: /directory|folder/ },
  { what: 'a drawing in a folder', args: ['stack', 'show', stack, '--graph', aFolder], says: /cannot write/ },
  { what: 'a package below a file', args: ['new', 'device', 'acme-x', '--dir', below], says: /cannot make the folder .*below.*: not a directory/ },
]
/** Those of a run. */
const during: Refusal[] = [
  { what: 'a folder as a kernel', args: ['run', '--kernel', aFolder], says: /cannot read the kernel .*: it is a folder/ },
  { what: 'a folder as a disk of the configuration', args: [...run, '--set', `devices=[{ kind: virtio-blk, image: ${aFolder} }]`], says: /cannot open the disk image .*: it is a folder/ },
  { what: 'a full disk for the trace', args: [...run, '--trace', full], says: /cannot write the trace .*no space left/ },
  { what: 'a full disk for the profile', args: [...run, '--profile', full], says: /cannot write the profile .*no space left/ },
]

const check = ({ says }: Refusal, { status, err }: { status: number | null; err: string }) => {
  expect(err).toMatch(says)
  expect(err.match(/^error: /gm)).toHaveLength(1)
  expect(err).not.toMatch(stackTrace)
  expect(err).not.toContain('bug in nonroot')
  expect(status).toBe(3)
}

describe('the host refuses', { timeout: 120_000 }, () => {
  it.each(before)('$what', async (refusal) => {
    const saved = { ...process.env }
    Object.assign(process.env, refusal.env)
    try {
      check(refusal, await cli(...refusal.args))
    } finally {
      process.env = saved
    }
  })

  it.each(process.platform === 'linux' ? during : [])('$what', async (refusal) => check(refusal, await spawnCli(refusal.args)))

  it('nothing for want of HOME', async () => {
    const { HOME: _, ...env } = process.env
    const { status, out, err } = await spawnCli(run, { env: { ...env, HOME: undefined } })
    expect({ status, out, err }).toEqual({ status: 33, out: 'hello\n', err: '' })
  })
})
