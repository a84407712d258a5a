/** What this package adds to a stack. */

import { API_VERSION, defineDevice, defineIoModel, definePlugin, noOptions } from '@nonroot/contracts'
import { z } from 'zod'
import { PlatformDevice } from './platform-device.ts'
import { createXenHvmPlatform, createXenPlatform } from './platform.ts'

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
      kind: 'xen-platform',
      summary: "Xen's platform device of a PC: the guest unplugs emulated disks and network cards by it",
      options: noOptions,
      needs: ['pci', 'eventChannels'],
      create: (_options, context) => new PlatformDevice(context),
    }),
  ],
})
