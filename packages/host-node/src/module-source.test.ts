import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { afterAll, beforeAll, describe, expect, it } from 'vitest'
import { createNodeModuleSource } from './index.ts'

let root: string
const source = createNodeModuleSource({ conditions: ['special'] })

beforeAll(() => {
  root = mkdtempSync(join(tmpdir(), 'nonroot-source-'))
  const files: Record<string, string> = {
    'project/sub/stack.yaml': '',
    'project/package.json':
      '{ "name": "project", "exports": "./own.js", "nonroot": { "apiVersion": 1, "provides": [] } }',
    'project/own.js': 'export default 1',
    'project/node_modules/plain/package.json': '{ "name": "plain", "version": "1.0.0" }',
    'project/node_modules/plain/index.js': '',
    'project/node_modules/@s/modern/package.json':
      '{ "name": "@s/modern", "type": "module", "exports": { ".": { "special": "./special.js", "import": "./import.js" }, "./x.yaml": "./x.yaml" }, "nonroot": {} }',
    'project/node_modules/@s/modern/import.js': 'export default 2',
    'project/node_modules/@s/modern/special.js': 'export default 3',
    'project/node_modules/@s/modern/x.yaml': '',
    'project/node_modules/broken/package.json': '{',
    'project/node_modules/hollow/package.json': '{ "name": "hollow", "exports": "./gone.js" }',
    'project/node_modules/hollow/x': '',
    'near/package.json': '{ "name": "near", "main": "main.js" }',
    'near/main.js': '',
  }
  for (const [path, text] of Object.entries(files)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), text)
  }
})
afterAll(() => rmSync(root, { recursive: true, force: true }))

describe('finding packages', () => {
  it.each([
    { specifier: 'plain', name: 'plain', entry: 'project/node_modules/plain/index.js' },
    { specifier: '@s/modern', name: '@s/modern', entry: 'project/node_modules/@s/modern/special.js' },
    { specifier: 'project', name: 'project', entry: 'project/own.js' },
    { specifier: '../../near', name: 'near', entry: 'near/main.js' },
    { specifier: '../../near/main.js', name: 'near', entry: 'near/main.js' },
    { specifier: 'hollow', name: 'hollow', entry: undefined },
    { specifier: 'broken', name: 'broken', entry: undefined },
  ])('$specifier', async ({ specifier, name, entry }) => {
    const found = await source.findPackage(specifier, join(root, 'project/sub'))
    expect(found).toMatchObject({ name })
    if (entry) expect(found?.entry).toBe(new URL(`file://${root}/${entry}`).href)
    else expect(found).toMatchObject({ entry: undefined, problem: expect.any(String) })
  })

  it.each(['absent', './absent', 'node:fs', 'https://example.org/x.js', '', '@s'])(
    '%s is not found',
    async (specifier) => {
      expect(await source.findPackage(specifier, join(root, 'project/sub'))).toBeUndefined()
    },
  )

  it('finds files that packages export, and plugins that are installed', async () => {
    const from = join(root, 'project/sub')
    expect(await source.findFile('@s/modern/x.yaml', from)).toBe(join(root, 'project/node_modules/@s/modern/x.yaml'))
    expect(await source.findFile('@s/modern/y.yaml', from)).toBeUndefined()
    expect((await source.installedPlugins(from)).map((found) => found.name)).toContain('@s/modern')
  })
})

describe('trying out an import', () => {
  it.each([
    { code: 'export default 1', wanted: { outcome: 'loaded' } },
    { code: 'throw new Error("no\\nway")', wanted: { outcome: 'threw', message: 'no' } },
    { code: 'process.exit(7)', wanted: { outcome: 'exited', status: 7 } },
    { code: 'for (;;);', wanted: { outcome: 'timedOut' } },
    { code: 'await new Promise(() => {})', wanted: { outcome: 'timedOut' } },
  ])('$code', async ({ code, wanted }) => {
    const file = join(root, 'try.mjs')
    writeFileSync(file, code)
    expect(await source.probe(new URL(`file://${file}`).href, 1500)).toEqual(wanted)
  })
})
