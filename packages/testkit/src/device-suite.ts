/** What every device must do, whatever it is: survive its guest, reset, save and restore. */

import type { DeviceDefinition, IoSize } from '@nonroot/contracts'
import { check, createRandom, same } from './check.ts'
import type { TestRegistrar } from './check.ts'
import { benchDevice } from './device-bench.ts'
import type { DeviceBench, DeviceBenchOptions } from './device-bench.ts'

/** Registers the suite for a device with the given options. */
export function testDevice(
  definition: DeviceDefinition,
  rawOptions: unknown,
  it: TestRegistrar,
  benchOptions: () => DeviceBenchOptions = () => ({}),
): void {
  const create = () => benchDevice(definition, rawOptions, benchOptions())
  const { kind } = definition

  it(`${kind}: answers any access with a number of its size`, async () => {
    const { bench } = await create()
    hammer(bench, 4000)
  })

  it(`${kind}: is as new after reset`, async () => {
    const { device, bench } = await create()
    if (!device.reset) return
    device.reset()
    const fresh = device.save?.()
    hammer(bench, 500)
    device.reset()
    device.reset()
    check(same(device.save?.(), fresh), 'a reset device saves another state than one just reset')
  })

  it(`${kind}: restores what it saved, in another one of its kind`, async () => {
    const [one, other] = [await create(), await create()]
    if (!one.device.save || !other.device.restore) return
    hammer(one.bench, 500)
    const saved = one.device.save()
    check(
      saved.type !== '' && Number.isInteger(saved.version) && saved.version >= 1,
      'a snapshot has a type and a version',
    )
    const copied = structuredClone(saved)
    other.device.restore(copied)
    check(same(other.device.save?.(), saved), 'saving after restoring gives another state')
  })

  it(`${kind}: refuses a snapshot from the future`, async () => {
    const { device } = await create()
    if (!device.save || !device.restore) return
    const future = { ...device.save(), version: 1_000_000 }
    let refused = false
    try {
      device.restore(future)
    } catch {
      refused = true
    }
    check(refused, 'it restored version 1000000')
  })

  it(`${kind}: goes away quietly`, async () => {
    const { device } = await create()
    await device.quiesce?.()
    await device.dispose?.()
  })
}

const SIZES: readonly IoSize[] = [1, 2, 4]

/** Random reads and writes over all that the device claimed, with time passing. */
function hammer(bench: DeviceBench, times: number): void {
  const random = createRandom()
  for (let step = 0; step < times; step++) {
    const onPort = bench.mmio.length === 0 || (bench.ports.length > 0 && random(2) === 0)
    const regions = onPort ? bench.ports : bench.mmio
    const region = regions[random(Math.max(regions.length, 1))]
    if (!region) return
    const size = SIZES[random(3)]!
    const address = region.base + random(region.length)
    if (random(2) === 0) {
      const value = onPort ? bench.readPort(address, size) : bench.readMmio(address, size)
      check(
        value === -1 || (Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size)),
        `reading ${size} at offset ${address - region.base} gave ${value}`,
      )
    } else if (onPort) bench.writePort(address, random(2 ** 32), size)
    else bench.writeMmio(address, random(2 ** 32), size)
    if (random(16) === 0) bench.clock.advanceNs(random(1e6))
  }
}
