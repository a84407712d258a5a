/** The bundle that `npm run prepare` made: a run takes its code from it, in few files, and does what the packages do. */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, describe, expect, it } from 'vitest'
import { command, root } from './workspace.ts'

const folder = mkdtempSync(join(tmpdir(), 'nonroot-bundle-'))
afterAll(() => rmSync(folder, { recursive: true, force: true }))

/** Tells each module file that any thread of the process loads. */
const TELL_LOADS = `data:text/javascript,${encodeURIComponent(`
  import { registerHooks } from 'node:module'
  import { writeSync } from 'node:fs'
  registerHooks({
    load(url, context, next) {
      if (url.startsWith('file:')) writeSync(2, 'load ' + url + '\\n')
      return next(url, context)
    },
  })
`)}`

const nonroot = (args: readonly string[], env: NodeJS.ProcessEnv = {}) =>
  command('node', [join(root, 'apps/cli/bin/nonroot.js'), ...args], folder, { NONROOT_CACHE: folder, ...env })
const hello = join(root, 'guests/hello/hello.elf')
const run = ['run', '--memory', '8M', '--kernel', hello]

describe('the bundle', () => {
  it('is all that a run loads, and is few files', async () => {
    const { status, out, err } = await nonroot(run, { NODE_OPTIONS: `--import ${TELL_LOADS}` })
    expect({ status, out }, err).toEqual({ status: 33, out: 'hello\n' })
    const loaded = [...err.matchAll(/^load (.*)$/gm)].map(([, url]) => url!.slice(url!.indexOf('/apps/')))
    expect(loaded).toContain('/apps/cli/bundle/vm-thread.js')
    expect(loaded.filter((path) => !path.startsWith('/apps/cli/bundle/'))).toEqual(['/apps/cli/bin/nonroot.js'])
    // One of them is the network, which a guest has by default; two are the control sockets, loaded when the guest runs.
    expect(loaded.length).toBeLessThanOrEqual(16)
  })

  it('compiles guest code on a thread of its own, and says nothing', async () => {
    const { status, out, err } = await nonroot(['run', '--kernel', join(root, 'guests/demo/demo.elf')])
    expect({ status, err }).toEqual({ status: 0, err: '' })
    expect(out).toContain(' 0 failed')
  })

  it.each([
    {
      name: 'a plugin that refuses its options',
      args: ['--set', 'stack.paging.strategy=ebt'],
      says: 'did you mean "ept"',
    },
    { name: 'a configuration', args: ['--set', 'machine.memroy=1'], says: 'memroy' },
  ])('tells errors of $name', async ({ args, says }) => {
    const { status, err } = await nonroot([...run, ...args])
    expect(status, err).toBe(2)
    expect(err).toContain(says)
    expect(err).not.toContain('bug in nonroot')
  })

  it.each([
    { args: ['config', 'schema'], says: 'stack-v1.json' },
    { args: ['stack', 'show', join(root, 'stacks/kvm-like.yaml')], says: '@nonroot/mmu@' },
    { args: ['plugins'], says: 'nonroot' },
    { args: ['jit', 'dump', '--bytes', '48 01 d8'], says: 'add' },
    { args: ['--help'], says: 'nonroot' },
  ])('has the command $args', async ({ args, says }) => {
    const { status, out, err } = await nonroot(args)
    expect(status, err).toBe(0)
    expect(out).toContain(says)
  })

  it('starts without a cache that can be written', async () => {
    const { status, out, err } = await nonroot(run, { NONROOT_CACHE: hello })
    expect({ status, out, err }).toEqual({ status: 33, out: 'hello\n', err: '' })
  })
})
