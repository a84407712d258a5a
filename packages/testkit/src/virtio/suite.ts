/** What every virtio device must do on every transport and ring, whatever its type. Statements of the specification by name. */

import { check, checkSame, createRandom } from '../check.ts'
import type { TestRegistrar } from '../check.ts'
import type { DeviceBench } from '../device-bench.ts'
import type { Device } from '@nonroot/contracts'
import { VirtioFeature, VirtioStatus } from './driver.ts'
import type { MockVirtioDriver } from './driver.ts'
import { writeDescriptor } from './rings.ts'

export interface VirtioSubject {
  readonly device: Device
  readonly bench: DeviceBench
  readonly driver: MockVirtioDriver
}

export interface VirtioSuiteOptions {
  /** The device tells its driver that it was restored: by these queues, and by a change of the configuration. */
  readonly tellsOfRestore?: { readonly queues?: readonly number[] }
}

/** `create` makes a new device on a new bench each time. */
export function testVirtioDevice(
  name: string,
  create: () => Promise<VirtioSubject>,
  it: TestRegistrar,
  options: VirtioSuiteOptions = {},
): void {
  const test = (statement: string, run: (subject: VirtioSubject) => void | Promise<void>): void => {
    it(`${name}: ${statement}`, async () => run(await create()))
  }

  test('MUST initialize device status to 0 upon reset', ({ driver: { registers }, driver }) => {
    checkSame(registers.status(), 0, 'status after power-up')
    driver.start()
    registers.writeStatus(0)
    checkSame(registers.status(), 0, 'status after a reset')
  })

  test('MUST offer VIRTIO_F_VERSION_1', ({ driver }) => {
    check(driver.offered().has(VirtioFeature.version1), 'VIRTIO_F_VERSION_1 is not offered')
  })

  test('MUST NOT offer a feature which requires another feature which was not offered', ({ driver }) => {
    const offered = driver.offered()
    for (const { deviceId, feature, needs } of REQUIREMENTS)
      if (deviceId === driver.registers.deviceId && offered.has(feature))
        check(
          needs.some((bit) => offered.has(bit)),
          `feature ${feature} is offered without ${needs.join(' or ')}`,
        )
  })

  test('SHOULD accept any valid subset of features', ({ driver }) => {
    const random = createRandom(0xfea7)
    const offered = [...driver.offered()]
    const accept = (features: readonly number[]): void => {
      driver.reset()
      check(driver.negotiate(features), `features ${features.join()} were not accepted`)
    }
    accept([VirtioFeature.version1])
    accept(offered)
    for (let round = 0; round < 20; round++)
      accept(offered.filter((bit) => bit === VirtioFeature.version1 || random(2) === 0))
  })

  test('MUST fail to set FEATURES_OK for features that it did not offer', ({ driver }) => {
    driver.reset()
    const offered = driver.offered()
    const missing = [20, 41, 63].find((bit) => !offered.has(bit))!
    check(!driver.negotiate([VirtioFeature.version1, missing]), `bit ${missing} was accepted`)
  })

  test('fails to set FEATURES_OK without VIRTIO_F_VERSION_1', ({ driver }) => {
    driver.reset()
    check(!driver.negotiate([]), 'a legacy driver was accepted')
  })

  test('MUST NOT consume buffers or notify the driver before DRIVER_OK', ({ driver, bench }) => {
    driver.reset()
    driver.negotiate(driver.offered())
    driver.enable(0, driver.makeRing(0, 8))
    const address = driver.allocate(64)
    driver.ring(0).add([{ address, length: 64, writable: true }])
    driver.kick(0)
    checkSame(driver.ring(0).takeUsed(), [], 'buffers used before DRIVER_OK')
    checkSame(bench.functions[0]?.signals ?? [], [], 'notifications before DRIVER_OK')
    const { registers } = driver
    checkSame([registers.queueInterrupts(0), registers.configInterrupts()], [0, 0], 'interrupts before DRIVER_OK')
  })

  test('reaches no memory and sends no message without Bus Master Enable', ({ driver, bench }) => {
    const [pciFunction] = bench.functions
    if (!pciFunction) return
    driver.start()
    pciFunction.signals.length = 0
    pciFunction.busMaster = false
    const address = driver.allocate(64)
    driver.ring(0).add([{ address, length: 64, writable: true }])
    driver.kick(0)
    const { areas } = driver.ring(0)
    checkSame(driver.ring(0).takeUsed(), [], `buffers used without it, of the ring at ${areas.device}`)
    checkSame([...driver.bytes(address, 64)], Array(64).fill(0), 'what a buffer holds')
    checkSame(pciFunction.signals, [], 'messages without it')
    pciFunction.busMaster = true
    driver.start()
    check(!driver.needsReset, 'the device needs a reset after its reset')
  })

  test('MUST allow reading of any device-specific configuration field before FEATURES_OK is set', ({ driver }) => {
    driver.reset()
    for (let offset = 0; offset < 64; offset += 4) {
      const value = driver.registers.readConfig(offset, 4)
      check(Number.isInteger(value) && value >= 0, `configuration at ${offset} gave ${value}`)
    }
  })

  test('MUST present 0 in queue_size for a queue that is unavailable', ({ driver }) => {
    driver.registers.selectQueue(999)
    checkSame(driver.registers.queueSize(), 0, 'size of queue 999')
  })

  test('MUST present a 0 in queue_enable on reset', ({ driver }) => {
    driver.start()
    driver.registers.writeStatus(0)
    driver.registers.selectQueue(0)
    check(!driver.registers.queueEnabled(), 'queue 0 is still enabled')
  })

  test('MUST present either 0 or a power of 2 in queue_size', ({ driver: { registers } }) => {
    for (let index = 0; index < 70; index++) {
      registers.selectQueue(index)
      const size = registers.queueSize()
      check((size & (size - 1)) === 0, `size ${size} of queue ${index}`)
    }
  })

  test('SHOULD support at least 2 and at most 0x800 MSI-X vectors', ({ bench }) => {
    const vectors = bench.functions[0]?.description.msixVectors ?? 2
    check(vectors >= 2 && vectors <= 0x800, `${vectors} vectors`)
  })

  test('after a virtqueue reset MUST NOT execute any requests from that virtqueue, or notify the driver for it', async ({
    driver,
    device,
  }) => {
    driver.start()
    const { registers } = driver
    registers.selectQueue(0)
    registers.resetQueue()
    driver.ring(0).add([{ address: driver.allocate(64), length: 64, writable: true }])
    const interrupts = registers.queueInterrupts(0)
    registers.notify(0)
    await device.quiesce?.()
    checkSame(driver.ring(0).takeUsed(), [], 'buffers used after the reset')
    checkSame(registers.queueInterrupts(0), interrupts, 'interrupts after the reset')
  })

  test('after a virtqueue reset MUST observe any queue configuration that was changed by the driver', async ({
    driver,
    device,
  }) => {
    driver.start({ queueSize: 16 })
    const { registers } = driver
    for (const size of [4, 8, 2]) {
      registers.selectQueue(0)
      registers.resetQueue()
      await device.quiesce?.()
      check(!registers.queueResetting() && !registers.queueEnabled(), 'the reset is over and the queue disabled')
      // "MUST reset any state of a virtqueue to the default state": a fresh ring starts at its beginning.
      driver.enable(0, driver.makeRing(0, size))
      registers.selectQueue(0)
      check(registers.queueEnabled() && !registers.queueResetting(), 'the queue is enabled again')
      registers.notify(0)
      check(!driver.needsReset, `the device broke over a ring of ${size}`)
    }
  })

  test('keeps rings where they are while they are in use', ({ driver }) => {
    driver.start()
    const { registers } = driver
    registers.selectQueue(0)
    registers.writeQueueAreas({ descriptors: 2 ** 40, driver: 2 ** 40, device: 2 ** 40 })
    registers.writeQueueSize(2)
    registers.enableQueue()
    driver.kick(0)
    check(!driver.needsReset, 'the device looked at the moved rings')
  })

  test('SHOULD set DEVICE_NEEDS_RESET, and MUST then send a configuration change notification', ({ driver }) => {
    driver.start({ accept: (bit) => bit !== VirtioFeature.packed })
    // A head that is no descriptor, in whichever queue the device looks at first.
    for (const { areas } of driver.rings) {
      driver.memory.writeU16(areas.driver + 4, 0xffff)
      driver.memory.writeU16(areas.driver + 2, 1)
    }
    drawIn(driver)
    check(driver.needsReset, 'the device goes on with a broken queue')
    check(driver.registers.configInterrupts() > 0, 'the driver was not told')
    driver.start()
    check(!driver.needsReset, 'a reset does not help')
  })

  test('MUST handle spurious notifications from the driver', ({ driver }) => {
    driver.start()
    for (let index = 0; index < 300; index++) driver.registers.notify(index % 5)
    driver.registers.notify(0xffff)
    check(!driver.needsReset, 'the device broke')
  })

  test('is the same device again after a reset in the middle of requests', async ({ driver, device }) => {
    for (let round = 0; round < 3; round++) {
      driver.start()
      const address = driver.allocate(256)
      driver.send(0, [{ address, length: 256, writable: true }])
      driver.reset()
    }
    await device.quiesce?.()
    driver.start()
    check(!driver.needsReset, 'the device needs a reset')
  })

  it(`${name}: saved, reset and restored in the midst of things it goes on as its twin does`, async () => {
    for (let round = 1; round <= 4; round++) {
      const twins = [new Script(await create(), round, options), new Script(await create(), round, options)] as const
      const [twin, subject] = twins
      const when = 3 + createRandom(round)(12)
      for (let step = 0; step < 30; step++) {
        if (step === when) await subject.saveResetRestore()
        checkSame(
          await subject.step(),
          await twin.step(),
          `script ${round}, restored before step ${when}: step ${step}`,
        )
      }
    }
  })

  test('survives adversarial rings', ({ driver }) => {
    const random = createRandom(0x5eed)
    for (let round = 0; round < 60; round++) {
      driver.start({ accept: (bit) => bit === VirtioFeature.version1 || random(3) !== 0, queueSize: 8 })
      for (const ring of driver.rings) if (ring) scribble(driver, ring.areas, random)
      for (let index = 0; index < driver.rings.length; index++) driver.kick(index)
      drawIn(driver)
    }
    driver.reset()
    checkSame(driver.registers.status() & VirtioStatus.needsReset, 0, 'NEEDS_RESET after a reset')
  })
}

/** Device types' features that make no sense alone. ("Feature bits" of each device type) */
const REQUIREMENTS: readonly { readonly deviceId: number; readonly feature: number; readonly needs: number[] }[] = [
  // Network: offloads need checksums, everything about the control queue needs it.
  ...[7, 8, 9, 10].map((feature) => ({ deviceId: 1, feature, needs: [1] })),
  ...[11, 12, 13, 14].map((feature) => ({ deviceId: 1, feature, needs: [0] })),
  ...[18, 19, 20, 22, 23].map((feature) => ({ deviceId: 1, feature, needs: [17] })),
  // Block: a switchable write cache can be flushed.
  { deviceId: 2, feature: 11, needs: [9] },
]

/** What a driver does and sees, by a seed: buffers of random shapes in random queues, some of which stay there. */
class Script {
  readonly #subject: VirtioSubject
  readonly #random: (below: number) => number
  readonly #room: { address: number; length: number }[] = []
  /** Buffers that each queue has. */
  readonly #waiting: number[] = []
  readonly #tells: VirtioSuiteOptions['tellsOfRestore']

  constructor(subject: VirtioSubject, seed: number, { tellsOfRestore }: VirtioSuiteOptions) {
    this.#tells = tellsOfRestore
    this.#subject = subject
    this.#random = createRandom(seed * 0x9e3779b9)
    const random = createRandom(seed)
    subject.driver.start({ accept: (bit) => bit === VirtioFeature.version1 || random(4) !== 0, queueSize: 16 })
  }

  async step(): Promise<unknown> {
    const { driver, device, bench } = this.#subject
    const random = this.#random
    const queues = driver.rings.flatMap((ring, index) => (ring ? [index] : []))
    const index = queues[random(queues.length)]!
    const waiting = this.#waiting[index] ?? 0
    if (waiting < 6) {
      this.#waiting[index] = waiting + 1
      const length = 16 + random(3) * 64
      const address = driver.place(Uint8Array.from({ length }, () => random(3)))
      const writable = random(2) === 0
      this.#room.push({ address, length })
      driver.send(
        index,
        random(2) === 0
          ? [{ address, length, writable }]
          : [
              { address, length: 8 },
              { address: address + 8, length: length - 8, writable },
            ],
      )
    } else driver.kick(index)
    if (random(4) === 0) bench.console.type('hello')
    await device.quiesce?.()
    await new Promise((resolve) => setTimeout(resolve, 0))
    const used = queues.map((queue) => driver.ring(queue).takeUsed())
    for (const [n, buffers] of used.entries()) this.#waiting[queues[n]!]! -= buffers.length
    const silent = (queue: number): boolean => !this.#tells?.queues?.includes(queue)
    return {
      used: used.filter((_, n) => silent(queues[n]!)),
      memory: this.#tells?.queues
        ? []
        : this.#room.map(({ address, length }) =>
            driver.bytes(address, length).reduce((sum, byte) => (Math.imul(sum, 31) + byte) | 0, 0),
          ),
      status: driver.registers.status(),
      interrupts: this.#tells?.queues ? [] : queues.map((queue) => driver.registers.queueInterrupts(queue)),
      configuration: this.#tells
        ? []
        : [
            driver.registers.configInterrupts(),
            ...[0, 4, 8, 12].map((offset) => driver.registers.readConfig(offset, 4)),
          ],
      output: [...bench.console.bytes],
    }
  }
  async saveResetRestore(): Promise<void> {
    const { device } = this.#subject
    await device.quiesce?.()
    const saved = structuredClone(device.save!())
    device.reset!()
    device.restore!(saved)
  }
}

/** Devices take from a queue when notified, or when they have something to send: notify all, twice. */
function drawIn(driver: MockVirtioDriver): void {
  for (let index = 0; index < driver.rings.length; index++) driver.registers.notify(index)
  for (let index = 0; index < driver.rings.length; index++) driver.registers.notify(index)
}

/** Rings full of descriptors that are nearly right: each field sometimes is what it should be. */
function scribble(
  driver: MockVirtioDriver,
  areas: { descriptors: number; driver: number; device: number },
  random: (below: number) => number,
): void {
  const { memory } = driver
  const buffer = driver.allocate(64)
  const addresses = [buffer, buffer, buffer, areas.descriptors, areas.device, 0, 2 ** 20 - 8, 0xfee00000, 2 ** 63]
  const lengths = [16, 64, 64, 1, 0, 0xffff_ffff, 0x8000_0000, 4096, 17]
  for (let index = 0; index < 8; index++) {
    writeDescriptor(memory, areas.descriptors + 16 * index, {
      address: BigInt(addresses[random(addresses.length)]!),
      length: lengths[random(lengths.length)]!,
      flags: random(4) === 0 ? random(0x10000) : random(8),
      next: random(4) === 0 ? random(0x10000) : random(8),
    })
  }
  // Packed rings have the flags where split ones have `next`: both kinds of ring get both kinds of nonsense.
  for (let index = 0; index < 8; index++)
    memory.writeU16(areas.driver + 4 + 2 * index, random(8) === 0 ? random(0x10000) : index)
  memory.writeU16(areas.driver, random(4))
  memory.writeU16(areas.driver + 2, random(3) === 0 ? random(0x10000) : random(9))
}
