import { testDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import manifest from '../package.json' with { type: 'json' }
import plugin from './index.ts'

describe('plugin', () => {
  it('provides what its manifest says', () => {
    const provided = [
      ...(plugin.strategies ?? []).map(({ role, name }) => `${role}:${name}`),
      ...(plugin.devices ?? []).map(({ kind }) => `device:${kind}`),
    ]
    expect(provided).toEqual(manifest.nonroot.provides)
  })

  it('fills in every option, and refuses others', async () => {
    const [pc] = plugin.strategies!
    const validate = pc!.options['~standard'].validate
    expect(await validate({})).toMatchObject({
      value: { serial: true, debugConsole: 'log', firmware: { bootMenu: true } },
    })
    expect((await validate({ sereal: true })).issues).toHaveLength(1)
  })
})

describe('devices', () => {
  for (const device of plugin.devices!.filter(({ kind }) => kind === 'uart')) testDevice(device, {}, it)
})
