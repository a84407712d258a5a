/** The README's device is a device. */

import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { API_VERSION, defineDevice, definePlugin, noOptions, VirtioTransport } from '@nonroot/contracts'
import type { Plugin } from '@nonroot/contracts'
import { benchVirtio, testVirtioDevice } from '@nonroot/testkit'
import { expect, it } from 'vitest'
import { stripTypeScriptTypes } from 'node:module'
import { createVirtio, virtioOptions } from './index.ts'

const [, code] = /```ts\n(import \{ API_VERSION[\s\S]*?)```/.exec(
  readFileSync(join(import.meta.dirname, '../README.md'), 'utf8'),
)!
const body = stripTypeScriptTypes(code!)
  .replace(/^import .*$/gm, '')
  .replace('export default', 'return')
const scope = { API_VERSION, defineDevice, definePlugin, noOptions, VirtioTransport } satisfies Record<string, unknown>
// oxlint-disable-next-line typescript/no-implied-eval -- the README is ours
const plugin = new Function(...Object.keys(scope), body)(...Object.values(scope)) as Plugin

const create = () => benchVirtio(plugin.devices![0]!, {}, createVirtio(virtioOptions.parse({ ring: 'packed' })))

it('shouts, in under 60 lines', async () => {
  expect(code!.split('\n').length).toBeLessThan(60)
  const { driver } = await create()
  driver.start()
  const { parts } = await driver.request(0, [new TextEncoder().encode('hello')], [5])
  expect(new TextDecoder().decode(parts[0])).toBe('HELLO')
})

testVirtioDevice('the device of the README', create, it)
