/** The plugin definition: what this package adds to a stack. */

import { API_VERSION, defineGuestAbi, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { XenHvmAbi } from './hvm/abi.ts'
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
      gives: ['tableHypercalls'],
      create: (_options, context) => new XenAbi(context),
    }),
    defineGuestAbi({
      name: 'xen-hvm',
      summary: "Xen's interface for guests with memory and interrupts of their own: PVH and HVM",
      options: z.strictObject({}),
      needs: ['unmodifiedKernel', 'interruptController', 'eventChannels'],
      conflicts: ['pvEntry'],
      create: (_options, context) => new XenHvmAbi(context),
    }),
  ],
})
