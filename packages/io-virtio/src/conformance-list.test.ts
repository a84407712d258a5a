/** docs/virtio-conformance.md names tests that exist. */

import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { expect, it } from 'vitest'

const root = join(import.meta.dirname, '../../..')

it('every test that the list names is there', () => {
  const list = readFileSync(join(root, 'docs/virtio-conformance.md'), 'utf8')
  const sources = globSync(['packages/io-virtio/src/**/*.test.ts', 'packages/testkit/src/virtio/*.ts'], { cwd: root })
    .map((file) => readFileSync(join(root, file), 'utf8'))
    .join('\n')
  const named = [...list.matchAll(/^\|.*\|([^|]*)\|$/gm)].flatMap(([, cell]) => [...cell!.matchAll(/`([^`]+)`/g)])
  expect(named.length).toBeGreaterThan(40)
  expect(named.map(([, name]) => name!).filter((name) => !sources.includes(name))).toEqual([])
})
