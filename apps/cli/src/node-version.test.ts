import { expect, it } from 'vitest'
import { checkNode } from './node-version.ts'

it.each([
  ['24.11.0', true],
  ['24.10.9', false],
  ['25.0.0', true],
  ['20.19.0', false],
  ['9.99.0', false],
])('Node %s: %s', (version, isTaken) => {
  const check = (): void => checkNode(version)
  if (isTaken) expect(check).not.toThrow()
  else expect(check).toThrow(expect.objectContaining({ code: 'host.node', value: version }))
})
