/** Which files a start takes its code from: bin/nonroot.js, in a tree of stubs. */

import { cpSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, it } from 'vitest'
import { exec, folderWith } from './testing/cli.ts'

const bin = fileURLToPath(new URL('../bin/', import.meta.url))
const stub = (name: string): string => `export const start = () => (console.log('${name}'), 0)`

/** Files by when they were written: later ones have larger numbers. */
it.each([
  { takes: 'dist', of: 'a tree without bundle', files: { 'dist/start.js': 1 } },
  { takes: 'bundle', of: 'an installed package', files: { 'dist/start.js': 1, 'bundle/start.js': 1 } },
  {
    takes: 'bundle',
    of: 'a workspace where all is built',
    files: {
      'dist/start.js': 1,
      'dist/.tsbuildinfo': 1,
      '../../packages/x/dist/.tsbuildinfo': 2,
      'bundle/start.js': 3,
    },
  },
  {
    takes: 'dist',
    of: 'a workspace where a package was built since',
    files: {
      'dist/start.js': 1,
      'dist/.tsbuildinfo': 1,
      '../../packages/x/dist/.tsbuildinfo': 4,
      'bundle/start.js': 3,
    },
  },
  {
    takes: 'dist',
    of: 'a workspace where the command was built since',
    files: { 'dist/start.js': 1, 'dist/.tsbuildinfo': 4, '../../packages/x/package.json': 1, 'bundle/start.js': 3 },
  },
])('$of: $takes', async ({ takes, files }) => {
  const content = (path: string): string => (path.endsWith('.js') ? stub(path.split('/')[0]!) : '{}')
  const paths = Object.entries(files).map(([path, time]) => [join('apps/cli', path), content(path), time] as const)
  const { folder, remove } = await folderWith({
    'apps/cli/package.json': '{ "type": "module" }',
    ...Object.fromEntries(paths.map(([path, text]) => [path, text])),
  })
  try {
    for (const [path, , time] of paths) utimesSync(join(folder, path), time, time)
    cpSync(bin, join(folder, 'apps/cli/bin'), { recursive: true })
    const result = await exec(process.execPath, [join(folder, 'apps/cli/bin/nonroot.js'), 'run'], {
      env: { NONROOT_CACHE: join(folder, 'cache') },
    })
    expect(result).toEqual({ status: 0, out: `${takes}\n`, err: '' })
  } finally {
    remove()
  }
})

it('its version it tells without any of them', async () => {
  const { folder, remove } = await folderWith({ 'package.json': '{ "type": "module", "version": "1.2.3" }' })
  try {
    cpSync(bin, join(folder, 'bin'), { recursive: true })
    const result = await exec(process.execPath, [join(folder, 'bin/nonroot.js'), '--version'])
    expect(result).toEqual({ status: 0, out: '1.2.3\n', err: '' })
  } finally {
    remove()
  }
})
