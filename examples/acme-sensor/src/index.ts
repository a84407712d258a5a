/** The plugin: what nonroot finds here. */

import { API_VERSION, defineDevice, definePlugin } from '@nonroot/contracts'
import { AcmeSensor } from './device.ts'
import { options } from './options.ts'

export default definePlugin({
  name: 'acme-sensor',
  apiVersion: API_VERSION,
  devices: [
    defineDevice({
      kind: 'acme-sensor',
      summary: 'counts up at a rate and interrupts at each count',
      options,
      create: (options, context) => new AcmeSensor(options, context),
    }),
  ],
})
