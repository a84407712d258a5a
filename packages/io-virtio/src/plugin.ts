/** The plugin definition: what this package adds to a stack. */

import { API_VERSION, defineDevice, defineIoModel, definePlugin, VirtioTransport } from '@nonroot/contracts'
import { VirtioBalloon } from './device/balloon.ts'
import { Block } from './device/block.ts'
import { VirtioMemory } from './device/memory.ts'
import { VirtioConsole } from './device/console.ts'
import { createEntropy } from './device/entropy.ts'
import { VirtioNet } from './device/net/device.ts'
import { NinePDevice } from './device/ninep/device.ts'
import { Vsock } from './device/vsock/device.ts'
import {
  balloonOptions,
  blockOptions,
  consoleOptions,
  memoryOptions,
  netOptions,
  ninePOptions,
  socketOptions,
  virtioOptions,
} from './options.ts'
import { createVirtio } from './virtio.ts'
import { z } from 'zod'

export default definePlugin({
  name: '@nonroot/io-virtio',
  apiVersion: API_VERSION,
  strategies: [
    defineIoModel({
      name: 'virtio',
      summary: 'virtio devices over PCI or MMIO: shared rings, asynchronous back ends',
      options: virtioOptions,
      gives: ['virtioTransport'],
      create: (options) => createVirtio(options),
    }),
  ],
  devices: [
    defineDevice({
      kind: 'virtio-blk',
      summary: 'a disk',
      options: blockOptions,
      needs: ['virtioTransport'],
      create: async ({ serial, queues, queueSize, format, ...disk }, context) => {
        const backend = await context.backend('block', { ...disk, ...(format === undefined ? {} : { format }) })
        return context
          .capability(VirtioTransport)
          .attach((port) => new Block(port, backend, { serial: serial ?? context.name, queues, queueSize }, context))
      },
    }),
    defineDevice({
      kind: 'virtio-net',
      summary: 'a network card',
      options: netOptions,
      needs: ['virtioTransport'],
      create: async ({ queues, queueSize, ...network }, context) => {
        const backend = await context.backend('network', network)
        return context
          .capability(VirtioTransport)
          .attach((port) => new VirtioNet(port, backend, { pairs: queues, queueSize }, context))
      },
    }),
    defineDevice({
      kind: 'virtio-rng',
      summary: 'random bytes of the host',
      options: z.strictObject({}),
      needs: ['virtioTransport'],
      create: async (_options, context) => {
        const source = await context.backend('entropy', {})
        return context.capability(VirtioTransport).attach(() => createEntropy(source))
      },
    }),
    defineDevice({
      kind: 'virtio-console',
      summary: 'consoles (hvc0) and ports for programs',
      options: consoleOptions,
      needs: ['virtioTransport'],
      create: async ({ console, ports }, context) => {
        const open = (name: string | undefined) => context.backend('console', name === undefined ? {} : { name })
        const opened = ports
          ? await Promise.all(
              ports.map(async ({ name, console: isConsole, backend }) => ({
                backend: await open(backend),
                console: isConsole,
                ...(name === undefined ? {} : { name }),
              })),
            )
          : [{ backend: await open(console), console: true }]
        return context.capability(VirtioTransport).attach((port) => new VirtioConsole(port, opened))
      },
    }),
    defineDevice({
      kind: 'virtio-balloon',
      summary: 'memory that the guest gives back on request',
      options: balloonOptions,
      needs: ['virtioTransport'],
      gives: ['balloon'],
      create: (options, context) =>
        context.capability(VirtioTransport).attach((port) => new VirtioBalloon(port, context, options)),
    }),
    defineDevice({
      kind: 'virtio-mem',
      summary: 'memory that is plugged and unplugged while the guest runs',
      options: memoryOptions,
      needs: ['virtioTransport'],
      create: (options, context) =>
        context.capability(VirtioTransport).attach((port) => new VirtioMemory(port, context, options)),
    }),
    defineDevice({
      kind: 'virtio-9p',
      summary: 'a folder of the host, shared',
      options: ninePOptions,
      needs: ['virtioTransport'],
      create: async ({ path, readOnly, tag }, context) => {
        const folder = await context.backend('folder', { path, readOnly })
        return context.capability(VirtioTransport).attach((port) => new NinePDevice(port, folder, tag))
      },
    }),
    defineDevice({
      kind: 'virtio-vsock',
      summary: 'streams between programs of host and guest, without a network',
      options: socketOptions,
      needs: ['virtioTransport'],
      create: async ({ path, cid }, context) => {
        const sockets = await context.backend('sockets', { path })
        return context.capability(VirtioTransport).attach((port) => new Vsock(port, sockets, cid))
      },
    }),
  ],
})
