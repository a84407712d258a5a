import { describe, expect, it } from 'vitest'
import { defineDevice, definePlugin, noOptions } from '../index.ts'
import type { Device, IoRegion, Schema } from '../index.ts'

describe('definers', () => {
  it('infer the options of create from the schema', () => {
    const options: Schema<{ rate: number }> = {
      '~standard': { version: 1, vendor: 'test', validate: (value) => ({ value: value as { rate: number } }) },
    }
    class Sensor implements Device {
      constructor(rate: number, region: IoRegion) {
        void rate
        void region
      }
    }
    const plugin = definePlugin({
      name: 'acme',
      apiVersion: 1,
      devices: [
        defineDevice({
          kind: 'acme-sensor',
          summary: 'a sensor',
          options,
          create: ({ rate }, { mmio }) => new Sensor(rate.valueOf(), mmio(4096, { read: () => 0, write: () => {} })),
        }),
      ],
    })
    expect(plugin.devices?.[0]?.kind).toBe('acme-sensor')
  })

  it('noOptions refuses each key by name', () => {
    const validate = noOptions['~standard'].validate
    expect(validate({})).toEqual({ value: {} })
    expect(validate({ a: 1 })).toMatchObject({ issues: [{ path: ['a'] }] })
  })
})
