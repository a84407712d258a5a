/** Drivers gone wrong, for as long as is asked: NONROOT_FUZZ_SECONDS=3600 npx vitest run src/fuzz.test.ts. A second for all of them otherwise. */

import { createRandom, VirtioFeature, VirtioStatus, writeDescriptor } from '@nonroot/testkit'
import type { VirtioSubject } from '@nonroot/testkit'
import { expect, it } from 'vitest'
import { subject, WAYS } from './virtio.test.support.ts'

const SECONDS = Number(process.env['NONROOT_FUZZ_SECONDS'] ?? 1)
const SEED = Number(process.env['NONROOT_FUZZ_SEED'] ?? Date.now() % 2 ** 31)
const DEVICES = [
  { kind: 'virtio-rng', options: {} },
  { kind: 'virtio-blk', options: { image: 'disk', queues: 2 } },
  { kind: 'virtio-console', options: { ports: [{ console: true }, { name: 'a' }] } },
  { kind: 'virtio-balloon', options: {} },
  { kind: 'virtio-9p', options: { path: 'shared' } },
  { kind: 'virtio-vsock', options: { path: 'vm.sock' } },
]
/** Guest memory that is scribbled over: above the driver's rings. */
const BUFFERS = 0x80000

/** One thing that a driver, sane or not, may do. */
function step({ driver, device, bench }: VirtioSubject, random: (below: number) => number): void {
  const { registers, memory } = driver
  const ring = driver.rings[random(Math.max(1, driver.rings.length))]
  switch (random(14)) {
    case 0:
      driver.start({
        accept: (bit) => bit === VirtioFeature.version1 || random(4) !== 0,
        queueSize: 2 ** (1 + random(5)),
      })
      break
    case 1:
      registers.writeStatus(random(256))
      break
    case 2: {
      // Any register, any value.
      const region = bench.mmio[random(bench.mmio.length)]!
      bench.writeMmio(region.base + random(region.length), random(2 ** 32), ([1, 2, 4] as const)[random(3)]!)
      break
    }
    case 3:
      registers.writeConfig(random(80), ([1, 2, 4] as const)[random(3)]!, random(2 ** 32))
      break
    case 4:
      if (random(20) === 0) device.reset?.()
      break
    case 5:
      registers.selectQueue(random(6))
      registers.resetQueue()
      break
    case 6:
    case 7:
    case 8:
      // Nearly right descriptors.
      if (!ring) break
      writeDescriptor(memory, ring.areas.descriptors + 16 * random(ring.size), {
        address: random(8) ? BUFFERS + random(0x70000) : BigInt(random(2 ** 32)) << BigInt(random(33)),
        length: random(6) ? random(5000) : random(2 ** 32),
        flags: random(6) ? random(8) : random(0x10000),
        next: random(6) ? random(ring.size) : random(0x10000),
      })
      memory.writeU16(ring.areas.driver + 4 + 2 * random(ring.size), random(8) ? random(ring.size) : random(0x10000))
      memory.writeU16(ring.areas.driver + 2, (memory.readU16(ring.areas.driver + 2)! + random(3)) & 0xffff)
      break
    case 9: {
      // A request that is nearly right.
      const at = BUFFERS + random(0x60000)
      for (let offset = 0; offset < 64; offset += 4)
        memory.writeU32(at + offset, random(3) ? random(32) : random(2 ** 32))
      if (!ring) break
      try {
        ring.add([
          { address: at, length: 1 + random(64) },
          { address: BUFFERS + random(0x60000), length: 1 + random(5000), writable: true },
        ])
      } catch {
        // It ran out of descriptors, or of sense.
      }
      break
    }
    case 10:
      memory.writeU16(
        ring ? ring.areas.descriptors + 16 * random(ring.size) + 14 : BUFFERS,
        random(2) ? 0x80 | random(4) : 0x8000 | random(4),
      )
      break
    default:
      registers.notify(random(6), random(2) ? random(0x10000) : undefined)
  }
}

it(`nothing that a driver does gets out (seed ${SEED})`, { timeout: SECONDS * 1000 + 30_000 }, async () => {
  const random = createRandom(SEED)
  const end = Date.now() + SECONDS * 1000
  do {
    const { kind, options } = DEVICES[random(DEVICES.length)]!
    const { transport, ring } = WAYS[random(WAYS.length)]!
    const model = { transport, ring, inOrder: random(2) === 0, notificationData: random(2) === 0 }
    const made = await subject(kind, options, model)
    for (let round = 0; round < 300; round++) {
      step(made, random)
      if (random(30) === 0) await new Promise((resolve) => setImmediate(resolve))
    }
    // After all that it still is a device.
    await made.device.quiesce?.()
    made.driver.start()
    expect(made.driver.registers.status()).toBe(
      VirtioStatus.acknowledge | VirtioStatus.driver | VirtioStatus.featuresOk | VirtioStatus.driverOk,
    )
    await made.device.quiesce?.()
    await made.device.dispose?.()
  } while (Date.now() < end)
})
