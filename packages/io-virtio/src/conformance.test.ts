import { testDevice, testVirtioDevice } from '@nonroot/testkit'
import { describe, expect, it } from 'vitest'
import manifest from '../package.json' with { type: 'json' }
import plugin, { createVirtio, virtioOptions } from './index.ts'
import { definitionOf, memoryOf, subject, usualBackends, WAYS } from './virtio.test.support.ts'

const DEVICES = [
  { kind: 'virtio-rng', options: {} },
  { kind: 'virtio-blk', options: { image: 'disk', queues: 2 } },
  { kind: 'virtio-net', options: {} },
  { kind: 'virtio-net', options: { queues: 2 } },
  { kind: 'virtio-console', options: {} },
  { kind: 'virtio-console', options: { ports: [{ console: true }, { name: 'org.nonroot.agent' }] } },
  { kind: 'virtio-balloon', options: {} },
  { kind: 'virtio-mem', options: { blockSize: '4 KiB' } },
  { kind: 'virtio-9p', options: { path: 'shared' } },
  { kind: 'virtio-vsock', options: { path: 'vm.sock' } },
]

/** A network card asks its driver to announce it; of a vsock the event queue tells that streams are gone. */
const tellsOfRestore: Readonly<Record<string, { queues?: number[] }>> = {
  'virtio-net': {},
  'virtio-vsock': { queues: [2] },
}

describe.each(WAYS)('$way', ({ transport, ring }) => {
  for (const { kind, options } of DEVICES) {
    const create = () => subject(kind, options, { transport, ring })
    testVirtioDevice(kind, create, it, tellsOfRestore[kind] ? { tellsOfRestore: tellsOfRestore[kind] } : {})
    const model = { transport, ring }
    testDevice(definitionOf(kind), options, it, () => ({
      models: [createVirtio(virtioOptions.parse(model))],
      backends: usualBackends(),
      ...memoryOf(kind),
    }))
  }
})

describe('plugin', () => {
  it('provides what its manifest says', () => {
    const provided = [
      ...(plugin.strategies ?? []).map(({ role, name }) => `${role}:${name}`),
      ...(plugin.devices ?? []).map(({ kind }) => `device:${kind}`),
    ]
    expect(provided).toEqual(manifest.nonroot.provides)
  })
})
