/** Plugins that misbehave: each gives one clear error that names it, exit status 2, no stack trace. */

import { join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { cli, fixtures, folderWith, spawnCli, stackTrace } from './testing/cli.ts'

interface Case {
  readonly name: string
  /** Of the plugin. */
  readonly manifest?: object | string
  /** Module text of the plugin; `sound` of a sound one, changed. */
  readonly code?: string
  /** After which it is given up; default: 6. Only of those in a process of their own. */
  readonly seconds?: string
  readonly says: readonly string[]
  readonly options?: string
  /** What else the stack names. */
  readonly more?: { readonly name: string; readonly code: string; readonly manifest?: object }
}

const schema = `const options = { '~standard': { version: 1, vendor: 'x', validate: (value) => ({ value }) } }\n`
const device = `{ kind: 'bad', summary: 's', options, create: () => ({}) }`
const sound = (plugin: string): string => `${schema}export default { name: 'bad-plugin', apiVersion: 1, ${plugin} }\n`
const field = { apiVersion: 1, provides: ['device:bad'] }

const cases: Case[] = [
  // Manifests: no code is imported
  { name: 'a package.json that is no JSON', manifest: '{ "name": ', says: ['its package.json cannot be read'] },
  { name: 'no nonroot field', manifest: { name: 'bad-plugin' }, says: ['has no "nonroot" field'] },
  {
    name: 'a nonroot field that is a word',
    manifest: { nonroot: 'yes' },
    says: ['the "nonroot" field of its package.json is "yes"'],
  },
  {
    name: 'no apiVersion',
    manifest: { nonroot: { provides: ['device:bad'] } },
    says: ['nonroot.apiVersion in its package.json is missing'],
  },
  {
    name: 'an apiVersion of the future',
    manifest: { nonroot: { apiVersion: 99, provides: ['device:bad'] } },
    code: 'console.log("RAN")',
    says: ['is made for version 99 of the plugin interface; this is version 1', 'upgrade nonroot'],
  },
  {
    name: 'an apiVersion of the past',
    manifest: { nonroot: { apiVersion: 0, provides: ['device:bad'] } },
    says: ['take a newer version of the plugin'],
  },
  {
    name: 'provides as a word',
    manifest: { nonroot: { apiVersion: 1, provides: 'device:bad' } },
    says: ['nonroot.provides in its package.json is "device:bad"'],
  },
  {
    name: 'provides an unknown role',
    manifest: { nonroot: { apiVersion: 1, provides: ['devise:bad'] } },
    says: ['names "devise:bad"', 'did you mean "device"?'],
  },
  {
    name: 'has a default that it does not provide',
    manifest: { nonroot: { apiVersion: 1, provides: ['device:bad'], defaults: ['device:worse'] } },
    says: ['nonroot.defaults in its package.json is ["device:worse"]', 'what the package provides: device:bad'],
  },
  {
    name: 'does not provide what is asked',
    manifest: { nonroot: { apiVersion: 1, provides: ['device:good'] } },
    says: ['has no device "bad"'],
  },
  {
    name: 'exports that lead nowhere',
    manifest: { exports: './nowhere.js', nonroot: field },
    says: ['cannot be imported', 'nowhere.js'],
  },
  // Importing
  { name: 'throws while loading', code: 'throw new Error("kaboom")', says: ['failed while loading: kaboom'] },
  { name: 'throws nothing while loading', code: 'throw undefined', says: ['failed while loading'] },
  { name: 'a syntax error', code: 'export default {', says: ['failed while loading'] },
  {
    name: 'imports what is not there',
    code: 'import "no-such-thing"',
    says: ['failed while loading', 'no-such-thing'],
  },
  { name: 'loops for ever while loading', code: 'for (;;);', seconds: '2', says: ['was not loaded after 2 s'] },
  {
    name: 'waits for ever while loading',
    code: 'await new Promise(() => setInterval(() => {}, 1000))',
    says: ['was not loaded after 6 s'],
  },
  { name: 'waits for nothing', code: 'await new Promise(() => {})', says: ['was not loaded after 6 s'] },
  { name: 'ends the process', code: 'process.exit(0)', says: ['it ended the process with status 0'] },
  // What it exports
  { name: 'exports nothing', code: 'export const x = 1', says: ['has no default export'] },
  {
    name: 'exports a function',
    code: 'export default () => {}',
    says: ['its default export is a function, not a plugin'],
  },
  { name: 'exports a promise', code: 'export default Promise.resolve({})', says: ['a promise, not a plugin'] },
  { name: 'exports null', code: 'export default null', says: ['its default export is null, not a plugin'] },
  {
    name: 'exports something that throws when looked at',
    code: 'export default new Proxy({}, { get() { throw new Error("hands off") } })',
    says: ['looking at its default export throws: hands off'],
  },
  {
    name: 'another name',
    code: `${schema}export default { name: 'other', apiVersion: 1, devices: [${device}] }`,
    says: ['it calls itself "other", but its package is "bad-plugin"'],
  },
  {
    name: 'another version inside',
    code: `${schema}export default { name: 'bad-plugin', apiVersion: 2, devices: [${device}] }`,
    says: ['its apiVersion is 2, but its package.json says 1'],
  },
  { name: 'devices as an object', code: sound('devices: {}'), says: ['devices is an object, not a list'] },
  {
    name: 'a device without create',
    code: sound(`devices: [{ kind: 'bad', options }]`),
    says: ['devices[0] (bad): create is missing, not a function'],
  },
  {
    name: 'a device without schema',
    code: sound(`devices: [{ kind: 'bad', options: {}, create() {} }]`),
    says: ['devices[0] (bad): options is an object, not a schema'],
  },
  {
    name: 'a strategy of no role',
    code: sound(`strategies: [{ role: 'pagination', name: 'x', options, create() {} }]`),
    says: ['strategies[0] has role "pagination"'],
  },
  {
    name: 'promises more than it exports',
    manifest: { nonroot: { apiVersion: 1, provides: ['device:bad', 'paging:x'] } },
    code: sound(`devices: [${device}]`),
    says: ['promises paging:x, which it does not export'],
  },
  {
    name: 'exports more than it promises',
    code: sound(`devices: [${device}, ${device.replace('bad', 'worse')}]`),
    says: ['it exports device:worse, which its package.json does not list'],
  },
  {
    name: 'defines a device twice',
    code: sound(`devices: [${device}, ${device}]`),
    says: ['it defines device:bad twice'],
  },
  // Options
  {
    name: 'a schema that throws',
    code: sound(
      `devices: [{ kind: 'bad', options: { '~standard': { version: 1, vendor: 'x', validate() { throw new Error('ouch') } } }, create() {} }]`,
    ),
    says: ['its schema of options throws: ouch'],
  },
  {
    name: 'a schema that never answers',
    code: sound(
      `devices: [{ kind: 'bad', options: { '~standard': { version: 1, vendor: 'x', validate: () => new Promise(() => {}) } }, create() {} }]`,
    ),
    says: ['gave no answer after 6 s'],
  },
  {
    name: 'a schema that answers nonsense',
    code: sound(
      `devices: [{ kind: 'bad', options: { '~standard': { version: 1, vendor: 'x', validate: () => 7 } }, create() {} }]`,
    ),
    says: ['answers with neither value nor issues'],
  },
  {
    name: 'a schema that refuses without a reason',
    code: sound(
      `devices: [{ kind: 'bad', options: { '~standard': { version: 1, vendor: 'x', validate: () => ({ issues: [] }) } }, create() {} }]`,
    ),
    says: ['refuses them without saying why'],
  },
  // Requirements
  {
    name: 'requires what nobody provides',
    code: sound(`requires: ['io:teleporter'], devices: [${device}]`),
    says: ['bad-plugin requires "io:teleporter", which no other plugin of this stack provides'],
  },
  {
    name: 'require each other in a circle',
    code: sound(`requires: ['device:evil'], devices: [${device}]`),
    more: {
      name: 'evil',
      code: `${schema}export default { name: 'evil', apiVersion: 1, requires: ['bad-plugin'], devices: [${device.replace('bad', 'evil')}] }`,
    },
    says: ['plugins require each other in a circle: bad-plugin -> evil -> bad-plugin'],
  },
  {
    name: 'needs what nobody gives',
    code: sound(`devices: [{ ...${device}, needs: ['acme.teleport'] }]`),
    says: ['bad-plugin bad needs acme.teleport, which nothing in this stack gives'],
  },
]

/** In a process of their own: where the test runner's own import would get in the way, and some to see the real status. */
const spawned = new Set([
  'throws while loading',
  'loops for ever while loading',
  'ends the process',
  'exports a promise',
  'exports something that throws when looked at',
  'a schema that never answers',
])

const stackFile = (more: string | undefined): string => {
  const light = join(fixtures, 'light')
  return [
    'apiVersion: nonroot/v1',
    'stack:',
    `  cpu: { use: ${light} }`,
    `  paging: { use: ${light} }`,
    `  abi: { use: ${light} }`,
    `  io: [{ use: ${light} }]`,
    'devices:',
    '  - { kind: bad, use: bad-plugin }',
    ...(more ? [`  - { kind: ${more}, use: ${more} }`] : []),
  ].join('\n')
}

const packageJson = (name: string, manifest: object = {}): string =>
  JSON.stringify({
    name,
    version: '6.6.6',
    type: 'module',
    exports: './index.js',
    nonroot: { apiVersion: 1, provides: [`device:${name}`] },
    ...manifest,
  })

describe('misbehaving plugins', () => {
  beforeAll(() => void (process.env['NONROOT_PLUGIN_TIMEOUT'] = '6'))
  const removers: (() => void)[] = []
  afterAll(() => removers.forEach((remove) => remove()))

  it.concurrent.each(cases)(
    '$name',
    async ({ name, seconds = '6', manifest = {}, code = sound(`devices: [${device}]`), says, more }) => {
      const { folder, remove } = await folderWith({
        'stack.yaml': stackFile(more?.name),
        'node_modules/bad-plugin/package.json':
          typeof manifest === 'string'
            ? manifest
            : packageJson('bad-plugin', {
                nonroot: field,
                ...('name' in manifest ? { nonroot: undefined } : {}),
                ...manifest,
              }),
        'node_modules/bad-plugin/index.js': code,
        ...(more
          ? {
              [`node_modules/${more.name}/package.json`]: packageJson(more.name),
              [`node_modules/${more.name}/index.js`]: more.code,
            }
          : {}),
      })
      removers.push(remove)
      const argv = ['config', 'check', join(folder, 'stack.yaml')]
      const { status, out, err } = spawned.has(name) ? await spawnCli(argv, { env: { NONROOT_PLUGIN_TIMEOUT: seconds } }) : await cli(...argv)
      expect({ status, out }, err).toEqual({ status: 2, out: '' })
      expect(err.match(/^error: /gm), err).toHaveLength(1)
      expect(err).toContain('bad-plugin')
      for (const words of says) expect(err).toContain(words)
      expect(err).not.toMatch(stackTrace)
    },
  )

  it('are at least 15', () => expect(cases.length).toBeGreaterThanOrEqual(15))
})
