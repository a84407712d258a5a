/** Drivers gone wrong, each kind of device on each transport and ring. For longer, and on real disks and folders: `npm run fuzz:virtio -- --minutes 60`. */

import { createRandom, fuzzVirtioDevice } from '@nonroot/testkit'
import { it } from 'vitest'
import { subject, WAYS } from './virtio.test.support.ts'

const SEED = Number(process.env['NONROOT_FUZZ_SEED'] ?? 1)
const DEVICES = [
  { kind: 'virtio-rng', options: {} },
  { kind: 'virtio-blk', options: { image: 'disk', queues: 2 } },
  { kind: 'virtio-net', options: { queues: 2 } },
  { kind: 'virtio-console', options: { ports: [{ console: true }, { name: 'a' }] } },
  { kind: 'virtio-balloon', options: {} },
  { kind: 'virtio-mem', options: { blockSize: '4 KiB', requested: '128 KiB' } },
  { kind: 'virtio-9p', options: { path: 'shared' } },
  { kind: 'virtio-vsock', options: { path: 'vm.sock' } },
]

it.each(DEVICES)(`nothing that a driver does gets out of $kind (seed ${SEED})`, async ({ kind, options }) => {
  const random = createRandom(SEED * 0x9e3779b9)
  for (const { transport, ring } of WAYS) {
    const made = await subject(kind, options, {
      transport,
      ring,
      inOrder: random(2) === 0,
      notificationData: random(2) === 0,
    })
    await fuzzVirtioDevice(made, { random, rounds: 60 })
    await made.device.dispose?.()
  }
})
