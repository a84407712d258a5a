import assert from 'node:assert/strict'
import { test } from 'node:test'
import { benchDevice, testDevice } from '@nonroot/testkit'
import { REGISTERS } from './device.ts'
import plugin from './index.ts'

const definition = plugin.devices![0]!

testDevice(definition, { rate: 100 }, test)

test('acme-sensor counts at its rate and interrupts', async () => {
  const { bench } = await benchDevice(definition, { rate: 100 })
  const { base } = bench.mmio[0]!
  bench.writeMmio(base + REGISTERS.control, 1)
  bench.clock.advanceNs(25e6)
  assert.equal(bench.readMmio(base + REGISTERS.count), 2)
  assert.equal(bench.line('ready').raised, true)
  bench.writeMmio(base + REGISTERS.status, 1)
  assert.equal(bench.line('ready').raised, false)
})

test('AcmeSensor takes no rate of zero', async () => {
  await assert.rejects(benchDevice(definition, { rate: 0 }))
})
