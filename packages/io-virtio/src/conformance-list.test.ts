/** docs/virtio-conformance.md and the tests agree: it names tests that exist, and every test that is named after a statement is in it. */

import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const root = join(import.meta.dirname, '../../..')
const list = readFileSync(join(root, 'docs/virtio-conformance.md'), 'utf8')
const rows = [...list.matchAll(/^\|(.*)\|([^|]*)\|$/gm)].map(([, before, last]) => ({ before: before!, last: last! }))
const sources = globSync(['packages/io-virtio/src/**/*.test.ts', 'packages/testkit/src/virtio/*.ts'], { cwd: root })
  .filter((file) => !file.endsWith('conformance-list.test.ts'))
  .map((file) => readFileSync(join(root, file), 'utf8'))
  .join('\n')
const named = rows.flatMap(({ last }) => [...last.matchAll(/`([^`]+)`/g)].map(([, name]) => name!))

it('every test that the list names is there', () => {
  expect(named.length).toBeGreaterThan(60)
  expect(named.filter((name) => !sources.includes(name))).toEqual([])
})

it('every test that is named after a statement is in the list', () => {
  const titles = [...sources.matchAll(/\b(?:it|test)(?:\.each\([\s\S]*?\))?\(\s*(['"`])(.*?)\1,/g)].map(
    ([, , title]) => title!,
  )
  const statements = titles.filter((title) => /\b(MUST|SHOULD)\b/.test(title))
  expect(statements.length).toBeGreaterThan(50)
  expect(statements.filter((title) => !list.includes(title))).toEqual([])
})

it('every statement has a test, or why it has none', () => {
  const states = rows.filter(({ before }) => /\b(MUST|SHOULD)\b/.test(before)).map(({ last }) => last.trim())
  expect(states.filter((state) => !/`|^not |^the same$|^ports are|^by /.test(state))).toEqual([])
})
