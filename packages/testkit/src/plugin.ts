/** What this package adds to a stack: devices by which kernels that test hypervisors look at theirs. */

import { API_VERSION, defineDevice, definePlugin, noOptions } from '@nonroot/contracts'
import { PcTestdev } from './pc-testdev.ts'

export default definePlugin({
  name: '@nonroot/testkit',
  apiVersion: API_VERSION,
  devices: [
    defineDevice({
      kind: 'pc-testdev',
      summary: "QEMU's test device: interrupt lines by port, bytes that are kept",
      options: noOptions,
      create: (_options, context) => new PcTestdev(context),
    }),
  ],
})
