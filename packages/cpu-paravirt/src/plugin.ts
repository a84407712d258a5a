/** What this package offers a stack. */

import { API_VERSION, defineCpuMode, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { createParavirtMode } from './mode.ts'

export default definePlugin({
  name: '@nonroot/cpu-paravirt',
  apiVersion: API_VERSION,
  strategies: [
    defineCpuMode({
      name: 'paravirt',
      summary: 'Paravirtualisation: guest kernel and user programs at CPL 3, entered and left by calls; needs no VMX',
      options: z.strictObject({
        codeCacheMiB: z
          .number()
          .int()
          .min(4)
          .max(512)
          .optional()
          .describe('MiB for decoded code of each vCPU (default 128)'),
        tiers: z
          .enum(['interpreter', 'both'])
          .optional()
          .describe('tiers of the processor: the interpreter alone, or the compiler behind it (default both)'),
      }),
      needs: ['directPaging', 'eventChannels'],
      gives: ['pvEntry'],
      create: createParavirtMode,
    }),
  ],
})
