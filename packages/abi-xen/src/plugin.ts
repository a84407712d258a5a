/** What this package adds to a stack. */

import { API_VERSION, defineGuestAbi, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { XenAbi } from './xen.ts'

export default definePlugin({
  name: '@nonroot/abi-xen',
  apiVersion: API_VERSION,
  strategies: [
    defineGuestAbi({
      name: 'xen',
      summary: "Xen's interface for paravirtual guests: hypercalls, shared information, event channels, clocks",
      options: z.strictObject({}),
      needs: ['pvEntry', 'directPaging', 'eventChannels'],
      create: (_options, context) => new XenAbi(context),
    }),
  ],
})
