/** What this package adds to a stack. */

import { API_VERSION, defineDevice, defineIoModel, definePlugin, noOptions } from '@nonroot/contracts'
import { z } from 'zod'
import { XenBackends } from './backends/backends.ts'
import { BlockBack } from './backends/block.ts'
import { diskHandle } from './backends/block-format.ts'
import { NetBack } from './backends/net/net-back.ts'
import { blockOptions, netOptions } from './options.ts'
import { PlatformDevice } from './platform-device.ts'
import { createXenHvmPlatform, createXenPlatform } from './platform.ts'

const LETTERS = [...'abcdefghijklmnopqrstuvwxyz']
const CARDS = Array.from({ length: 16 }, (_, index) => index)

export default definePlugin({
  name: '@nonroot/io-xen',
  apiVersion: API_VERSION,
  strategies: [
    defineIoModel({
      name: 'xen',
      summary: "Xen's event channels, console ring and store; the host plays domain 0",
      options: z.strictObject({}),
      gives: ['interruptController', 'eventChannels', 'xenstore'],
      create: createXenPlatform,
    }),
    defineIoModel({
      name: 'xen-hvm',
      summary: "Xen's event channels, console ring and store for a guest with local APICs; the host plays domain 0",
      options: z.strictObject({}),
      needs: ['interruptController'],
      gives: ['eventChannels', 'xenstore'],
      create: createXenHvmPlatform,
    }),
  ],
  devices: [
    defineDevice({
      kind: 'xen-blkback',
      summary: "a disk behind a ring: the guest's blkfront finds it",
      options: blockOptions,
      needs: ['eventChannels', 'xenstore'],
      create: async ({ target, format, ...disk }, context) => {
        const backend = await context.backend('block', { ...disk, ...(format === undefined ? {} : { format }) })
        const indices = target === undefined ? LETTERS.map((_, index) => index) : [LETTERS.indexOf(target.slice(-1))]
        return context
          .capability(XenBackends)
          .attach('vbd', indices.map(diskHandle), (handle, update) => new BlockBack(backend, handle, context, update))
      },
    }),
    defineDevice({
      kind: 'xen-netback',
      summary: "a network card behind two rings: the guest's netfront finds it",
      options: netOptions,
      needs: ['eventChannels', 'xenstore'],
      create: async (options, context) => {
        const network = await context.backend('network', options)
        return context
          .capability(XenBackends)
          .attach('vif', CARDS, (handle) => new NetBack(network, handle, context))
      },
    }),
    defineDevice({
      kind: 'xen-platform',
      summary: "Xen's platform device of a PC: the guest unplugs emulated disks and network cards by it",
      options: noOptions,
      needs: ['pci', 'eventChannels'],
      create: (_options, context) => new PlatformDevice(context),
    }),
  ],
})
