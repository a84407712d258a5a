/** What every device must do, whatever it is: survive its guest, reset, save and restore. */

import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type { Device, DeviceDefinition, IoSize, Snapshot } from '@nonroot/contracts'
import { check, checkSame, createRandom } from './check.ts'
import type { TestRegistrar } from './check.ts'
import { benchDevice } from './device-bench.ts'
import type { DeviceBench, DeviceBenchOptions } from './device-bench.ts'
import { testState } from './state-suite.ts'
import type { StateSubject } from './state-suite.ts'

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

  it(`${kind}: has reset, save and restore`, async () => {
    const { device } = await create()
    for (const method of ['reset', 'save', 'restore'] as const) check(device[method], `${kind} has no ${method}`)
    const saved = device.save!()
    check(
      saved.type !== '' && Number.isInteger(saved.version) && saved.version >= 1,
      'a snapshot has a type and a version',
    )
  })

  testState(kind, async () => new DeviceSubject(await create()), it)

  it(`${kind}: saves what it restored`, async () => {
    const [one, other] = [await create(), await create()]
    hammer(one.bench, 500)
    await one.device.quiesce?.()
    const saved = one.device.save!()
    other.device.restore!(structuredClone(saved))
    checkSame(other.device.save!(), saved, 'saved after it was restored')
  })

  it(`${kind}: refuses a snapshot from the future`, async () => {
    const { device } = await create()
    const future = { ...device.save!(), version: 1_000_000 }
    let refused = false
    try {
      device.restore!(future)
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
  for (let step = 0; step < times; step++) access(bench, random)
}

/** One access, and time that passes now and then. Gives what was done, and read. */
function access(bench: DeviceBench, random: (below: number) => number): string {
  const onPort = bench.mmio.length === 0 || (bench.ports.length > 0 && random(2) === 0)
  const regions = onPort ? bench.ports : bench.mmio
  const region = regions[random(Math.max(regions.length, 1))]
  if (!region) return ''
  const size = SIZES[random(3)]!
  const address = region.base + random(region.length)
  const isRead = random(2) === 0
  let value: number
  if (isRead) {
    value = onPort ? bench.readPort(address, size) : bench.readMmio(address, size)
    check(
      value === -1 || (Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size)),
      `reading ${size} at offset ${address - region.base} gave ${value}`,
    )
  } else {
    // Small values choose registers and set bits; large ones are addresses.
    value = random(2) === 0 ? random(256) : random(2 ** 32)
    if (onPort) bench.writePort(address, value, size)
    else bench.writeMmio(address, value, size)
  }
  if (random(16) === 0) bench.clock.advanceNs(random(1e6))
  return `${isRead ? 'read' : 'write'} ${size} at 0x${address.toString(16)}: 0x${value.toString(16)}`
}

/** A device on its bench, with all that can be seen there. */
class DeviceSubject implements StateSubject {
  readonly #device: Device
  readonly #bench: DeviceBench
  /** How much of the bench's logs was there before the last step. */
  #seen = { power: 0, messages: 0, output: 0, signals: 0 }

  constructor({ device, bench }: { device: Device; bench: DeviceBench }) {
    this.#device = device
    this.#bench = bench
  }

  step(random: (below: number) => number, peers: boolean): unknown {
    const { power, messages, console, functions, lines } = this.#bench
    const before = this.#seen
    if (peers && random(8) === 0) console.type('x'.repeat(1 + random(4)))
    const done = access(this.#bench, random)
    const signals = functions.flatMap((each) => each.signals)
    this.#seen = {
      power: power.length,
      messages: messages.length,
      output: console.bytes.length,
      signals: signals.length,
    }
    return {
      done,
      power: power.slice(before.power),
      messages: messages.slice(before.messages),
      output: console.bytes.slice(before.output),
      signals: signals.slice(before.signals),
      lines: [...lines].filter(([, line]) => line.raised).map(([name]) => name),
      pins: functions.map(({ line }) => line.raised),
    }
  }
  async settle(): Promise<void> {
    await this.#device.quiesce?.()
  }
  reset(): void {
    this.#device.reset!()
  }
  save(): Snapshot {
    return this.#device.save!()
  }
  restore(saved: Snapshot): void {
    this.#device.restore!(saved)
  }
  surround(other: this): void {
    const [mine, theirs] = [this.#bench, other.#bench]
    mine.clock.restore(theirs.clock.save())
    const page = new Uint8Array(FRAME_SIZE)
    for (let at = gpa(0); at < theirs.guestMemory.size; at = gpa(at + FRAME_SIZE)) {
      // Most pages have never been touched.
      if (theirs.guestMemory.peek(at) === undefined && mine.guestMemory.peek(at) === undefined) continue
      theirs.guestMemory.readBytes(at, page)
      mine.guestMemory.writeBytes(at, page)
    }
  }
}
