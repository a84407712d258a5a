/** Drivers gone wrong, for a second. For longer, and on real disks and folders: `npm run fuzz:virtio -- --minutes 60`. */

import { createRandom, fuzzVirtioDevice } from '@nonroot/testkit'
import { it } from 'vitest'
import { subject, WAYS } from './virtio.test.support.ts'

const SECONDS = Number(process.env['NONROOT_FUZZ_SECONDS'] ?? 1)
const SEED = Number(process.env['NONROOT_FUZZ_SEED'] ?? Date.now() % 2 ** 31)
const DEVICES = [
  { kind: 'virtio-rng', options: {} },
  { kind: 'virtio-blk', options: { image: 'disk', queues: 2 } },
  { kind: 'virtio-net', options: { queues: 2 } },
  { kind: 'virtio-console', options: { ports: [{ console: true }, { name: 'a' }] } },
  { kind: 'virtio-balloon', options: {} },
  { kind: 'virtio-9p', options: { path: 'shared' } },
  { kind: 'virtio-vsock', options: { path: 'vm.sock' } },
]

it(`nothing that a driver does gets out (seed ${SEED})`, { timeout: SECONDS * 1000 + 60_000 }, async () => {
  const random = createRandom(SEED)
  const end = Date.now() + SECONDS * 1000
  do {
    const { kind, options } = DEVICES[random(DEVICES.length)]!
    const { transport, ring } = WAYS[random(WAYS.length)]!
    const made = await subject(kind, options, {
      transport,
      ring,
      inOrder: random(2) === 0,
      notificationData: random(2) === 0,
    })
    await fuzzVirtioDevice(made, { random, rounds: 200 })
    await made.device.dispose?.()
  } while (Date.now() < end)
})
