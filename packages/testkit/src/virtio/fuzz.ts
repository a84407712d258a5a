/**
 * A virtio driver gone wrong: random and adversarial descriptors, rings, feature sets, register and configuration accesses, resets while
 * requests run. Whatever it does, the device answers, touches nothing after a reset, and is a device again after the next. Repeats by seed.
 */

import { check } from '../check.ts'
import type { DeviceBench } from '../device-bench.ts'
import { MockVirtioDriver, VirtioFeature, VirtioStatus } from './driver.ts'
import { writeDescriptor } from './rings.ts'
import type { DriverRing } from './rings.ts'
import type { VirtioSubject } from './suite.ts'

export type Random = (below: number) => number

/** What a driver may ask of this type of device, more or less: gets further than noise would. */
export interface FuzzRequest {
  readonly queue: number
  readonly out: readonly Uint8Array[]
  readonly room: readonly number[]
}

export interface VirtioFuzzOptions {
  /** Numbers below a limit: `createRandom(seed)`. */
  readonly random: Random
  /** Things that the driver does. Default 300. */
  readonly rounds?: number
  readonly request?: ((random: Random) => FuzzRequest) | undefined
  /** What the host does meanwhile: types, resizes, connects. */
  readonly outside?: ((random: Random) => void) | undefined
}

/** Guest memory that the fuzzer uses as it likes: above the driver's rings. */
const BUFFERS = 0x80000
const BUFFERS_SIZE = 0x70000
const SIZES = [1, 2, 4] as const
const MOST_STATUS = VirtioStatus.acknowledge | VirtioStatus.driver | VirtioStatus.featuresOk | VirtioStatus.driverOk

/** What came out of a device where nothing may. */
class Escaped extends Error {}

interface Fuzz extends VirtioSubject {
  readonly random: Random
  readonly options: VirtioFuzzOptions
}

/** Throws what the device let out, or what it left undone. */
export async function fuzzVirtioDevice(subject: VirtioSubject, options: VirtioFuzzOptions): Promise<void> {
  const { random, rounds = 300 } = options
  const bench = guarded(subject.bench)
  const fuzz: Fuzz = { ...subject, bench, driver: new MockVirtioDriver(bench), random, options }
  // One in two drivers mostly keeps to the rules of rings, and so gets to ask for things.
  const polite = random(2) === 0
  for (let round = 0; round < rounds; round++) {
    const [, step, breaks] = STEPS[pick(random)]!
    if (breaks && polite && random(20) > 0) continue
    try {
      step(fuzz)
    } catch (error) {
      // The driver itself runs out of descriptors, of memory, or of sense: that is what it is for.
      if (error instanceof Escaped) throw error
    }
    if (random(40) === 0) await new Promise((resolve) => setTimeout(resolve, 0))
    if (random(200) === 0) await checkSilence(fuzz)
  }
  await recover(fuzz)
}

/** Register accesses of a device never throw, and answers with a number of the size asked for. */
function guarded(bench: DeviceBench): DeviceBench {
  const guard = <T>(what: string, run: () => T): T => {
    try {
      return run()
    } catch (error) {
      throw new Escaped(`${what}: ${error instanceof Error ? error.message : String(error)}`, { cause: error })
    }
  }
  const guardedBench: Pick<DeviceBench, 'readMmio' | 'writeMmio'> = {
    readMmio(address, size = 4) {
      const value = guard(`reading ${size} at 0x${address.toString(16)}`, () => bench.readMmio(address, size))
      if (Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size)) return value
      throw new Escaped(`reading ${size} at 0x${address.toString(16)} gave ${value}`)
    },
    writeMmio(address, value, size = 4) {
      guard(`writing ${value} (${size}) at 0x${address.toString(16)}`, () => bench.writeMmio(address, value, size))
    },
  }
  return Object.assign(Object.create(bench) as DeviceBench, guardedBench)
}

/** "The device MUST NOT send notifications or interact with the queues" after a reset, which is over once the status reads 0. */
async function checkSilence({ driver, bench }: Fuzz): Promise<void> {
  await reset(driver)
  const signals = bench.functions[0]?.signals
  const [before, sent] = [digest(driver), signals?.length]
  for (let turn = 0; turn < 5; turn++) await new Promise((resolve) => setTimeout(resolve, turn && 1))
  check(digest(driver) === before, 'guest memory changed after a reset')
  check(signals?.length === sent, 'a notification was sent after a reset')
}

async function reset({ registers }: MockVirtioDriver): Promise<void> {
  registers.writeStatus(0)
  for (let turn = 0; registers.status() !== 0; turn++) {
    check(turn < 10_000, 'a reset has no end')
    await new Promise((resolve) => setTimeout(resolve, 1))
  }
}

function digest({ memory }: MockVirtioDriver): number {
  const piece = new DataView(new ArrayBuffer(1 << 16))
  let sum = 0
  for (let at = 0; at + piece.byteLength <= memory.size; at += piece.byteLength) {
    memory.readBytes(at, new Uint8Array(piece.buffer))
    for (let offset = 0; offset < piece.byteLength; offset += 4)
      sum = (Math.imul(sum, 31) + piece.getUint32(offset, true)) | 0
  }
  return sum
}

async function recover({ driver, device }: Fuzz): Promise<void> {
  await device.quiesce?.()
  await reset(driver)
  driver.start()
  check(driver.registers.status() === MOST_STATUS, `status is ${driver.registers.status()} after all that and a reset`)
  await device.quiesce?.()
}

// What a driver may do, and how often it does

type Step = (fuzz: Fuzz) => void
const BREAKS_RINGS = true

const ringOf = ({ driver, random }: Pick<Fuzz, 'driver' | 'random'>): DriverRing | undefined =>
  driver.rings[random(driver.rings.length || 1)]
const anywhere = (random: Random): number =>
  random(4) ? BUFFERS + random(BUFFERS_SIZE) : random(2) * 2 ** 32 + random(2 ** 32)

/** Where a device has no business: its own registers (re-entrant DMA), the local APIC, the end of RAM, beyond exact numbers. */
const hostileAddress = ({ bench, driver, random }: Fuzz): number | bigint => {
  const { size } = driver.memory
  const region = bench.mmio[random(bench.mmio.length)]!
  const places = [
    region.base + random(region.length),
    0xfee0_0000,
    size - 1 - random(64),
    size,
    0xffff_fff0,
    (1n << 64n) - BigInt(1 + random(4096)),
    BigInt(random(2 ** 32)) << BigInt(random(33)),
    ringOf({ driver, random })?.areas.device ?? 0,
  ]
  return places[random(places.length)]!
}

const HOSTILE_LENGTHS = [0, 1, 15, 17, 0xffff, 0x7fff_ffff, 0x8000_0000, 0xffff_fff0, 0xffff_ffff]

function descriptor(
  fuzz: Fuzz,
  entries: number,
): { address: number | bigint; length: number; flags: number; next: number } {
  const { random } = fuzz
  return {
    address: random(8) ? BUFFERS + random(BUFFERS_SIZE) : hostileAddress(fuzz),
    length: random(6) ? random(5000) : HOSTILE_LENGTHS[random(HOSTILE_LENGTHS.length)]!,
    flags: random(6) ? random(8) : random(0x10000),
    next: random(6) ? random(entries) : random(0x10000),
  }
}

const STEPS: readonly (readonly [times: number, step: Step, breaksRings?: boolean])[] = [
  [
    // A driver that means well, with some of the features and rings of any size.
    4,
    ({ driver, random }) =>
      driver.start({
        accept: (bit) => bit === VirtioFeature.version1 || random(4) !== 0,
        queueSize: random(4) ? 2 ** random(7) : 1 + random(64),
      }),
  ],
  [
    // Any features at all.
    1,
    ({ driver, random }) => {
      driver.registers.writeStatus(0)
      driver.negotiate(
        Array.from({ length: random(20) }, () => random(64)).concat(random(2) ? [VirtioFeature.version1] : []),
      )
      driver.ready()
    },
    BREAKS_RINGS,
  ],
  [1, ({ driver, random }) => driver.registers.writeStatus(random(4) ? random(16) : random(256))],
  [
    4,
    ({ bench, random }) => {
      const region = bench.mmio[random(bench.mmio.length)]!
      const [address, size] = [region.base + random(region.length), SIZES[random(3)]!]
      if (random(2)) bench.readMmio(address, size)
      else bench.writeMmio(address, random(2) ? random(16) : random(2 ** 32), size)
    },
  ],
  [
    2,
    ({ driver, random }) => {
      const [offset, size] = [random(80), SIZES[random(3)]!]
      if (random(2)) driver.registers.readConfig(offset, size)
      else driver.registers.writeConfig(offset, size, random(2 ** 32))
    },
  ],
  [
    // The PCI configuration access capability: the same registers by another way, at any time.
    1,
    ({ bench, random }) => {
      const window = bench.functions[0]?.description.capabilities?.find(({ handler }) => handler)?.handler
      if (!window) return
      const size = SIZES[random(3)]!
      if (random(2)) window.read(random(20), size)
      else window.write(random(20), size, random(2) ? random(0x4000) : random(2 ** 32))
    },
  ],
  [
    1,
    ({ bench, random }) => {
      const [pciFunction] = bench.functions
      if (pciFunction) pciFunction.msixEnabled = random(2) === 0
    },
  ],
  [
    // The machine is reset, or saved and restored, in the middle of requests.
    1,
    ({ device, random }) => {
      const what = random(8)
      if (what === 0) device.reset?.()
      if (what === 1 && device.save) device.restore?.(structuredClone(device.save()))
    },
  ],
  [
    2,
    ({ driver: { registers }, random }) => {
      registers.selectQueue(random(8))
      if (random(2)) registers.resetQueue()
      else registers.enableQueue()
    },
  ],
  [
    // Rings anywhere: over each other, over registers, outside memory, of sizes that are none.
    1,
    ({ driver: { registers }, random }) => {
      registers.selectQueue(random(6))
      registers.writeQueueSize(random(2) ? 2 ** random(16) : random(0x10000))
      const at = anywhere(random)
      registers.writeQueueAreas({
        descriptors: at & ~15,
        driver: random(2) ? at : anywhere(random),
        device: random(2) ? at : anywhere(random),
      })
      registers.enableQueue()
    },
    BREAKS_RINGS,
  ],
  [
    // Descriptors that are nearly right, of either format, and an available index that is.
    8,
    (fuzz) => {
      const { random, driver } = fuzz
      const { memory } = driver
      const ring = ringOf(fuzz)
      if (!ring) return
      const { descriptors, driver: available } = ring.areas
      writeDescriptor(memory, descriptors + 16 * random(ring.size), descriptor(fuzz, ring.size))
      memory.writeU16(available + 4 + 2 * random(ring.size), random(8) ? random(ring.size) : random(0x10000))
      const index = memory.readU16(available + 2)!
      memory.writeU16(available + 2, (random(16) ? index + random(3) : random(0x10000)) & 0xffff)
    },
    BREAKS_RINGS,
  ],
  [
    // The flags of packed descriptors: available, used, or neither, with lists and tables.
    3,
    (fuzz) => {
      const { random, driver } = fuzz
      const ring = ringOf(fuzz)
      const flags = (random(2) ? 0x80 : 0x8000) | random(8)
      driver.memory.writeU16(ring ? ring.areas.descriptors + 16 * random(ring.size) + 14 : BUFFERS, flags)
    },
    BREAKS_RINGS,
  ],
  [
    // An indirect table, full of nearly right descriptors, in place of a request.
    3,
    (fuzz) => {
      const { random, driver } = fuzz
      const ring = ringOf(fuzz)
      if (!ring) return
      const table = BUFFERS + 16 * random(0x1000)
      const entries = 1 + random(random(20) ? 8 : 1100)
      for (let index = 0; index < Math.min(entries, 40); index++)
        writeDescriptor(driver.memory, table + 16 * index, descriptor(fuzz, entries))
      ring.add([{ address: table, length: 16 * entries }], table + 16 * entries)
      writeDescriptor(driver.memory, ring.areas.descriptors + 16 * random(ring.size), {
        address: table,
        length: random(8) ? 16 * entries : random(2 ** 32),
        flags: 4 | random(8),
        next: random(ring.size),
      })
    },
    BREAKS_RINGS,
  ],
  [
    // Buffers that are what a driver would send, full of noise.
    4,
    (fuzz) => {
      const { random, driver } = fuzz
      const index = random(driver.rings.length || 1)
      const at = BUFFERS + random(0x60000)
      for (let offset = 0; offset < 64; offset += 4)
        driver.memory.writeU32(at + offset, random(3) ? random(32) : random(2 ** 32))
      driver.send(index, [
        { address: at, length: 1 + random(64) },
        { address: BUFFERS + random(0x60000), length: 1 + random(5000), writable: true },
      ])
    },
  ],
  [
    // Requests that are nearly right, however cut up.
    12,
    ({ driver, random, options }) => {
      const { queue, out, room } = options.request?.(random) ?? { queue: random(4), out: [], room: [1 + random(5000)] }
      const pieces = out.flatMap((bytes) => {
        const cut = random(4) ? bytes.length : random(bytes.length + 1)
        return [bytes.subarray(0, cut), bytes.subarray(cut)]
      })
      driver.send(queue, [
        ...pieces.map((bytes) => ({ address: driver.place(bytes), length: bytes.length })),
        ...room.map((length) => ({
          address: BUFFERS + random(BUFFERS_SIZE - Math.min(length, 0x60000)),
          length,
          writable: true,
        })),
      ])
      if (random(3) === 0) driver.ring(queue).takeUsed()
    },
  ],
  [
    // Memory that a request is made of changes under it.
    2,
    (fuzz) => {
      const { random, driver } = fuzz
      const { areas } = ringOf(fuzz) ?? { areas: { descriptors: BUFFERS, driver: BUFFERS, device: BUFFERS } }
      const at = [areas.descriptors, areas.driver, areas.device, BUFFERS][random(4)]!
      driver.memory.writeU32(at + random(256), random(2 ** 32))
    },
    BREAKS_RINGS,
  ],
  [6, ({ driver, random }) => driver.registers.notify(random(6), random(2) ? random(0x10000) : undefined)],
  [2, ({ options, random }) => options.outside?.(random)],
]

const TOTAL = STEPS.reduce((sum, [times]) => sum + times, 0)

function pick(random: Random): number {
  let left = random(TOTAL)
  return STEPS.findIndex(([times]) => (left -= times) < 0)
}
