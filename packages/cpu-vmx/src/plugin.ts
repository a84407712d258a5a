/** What this package offers a stack. */

import { API_VERSION, defineCpuMode, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { createVmxMode } from './mode.ts'

export default definePlugin({
  name: '@nonroot/cpu-vmx',
  apiVersion: API_VERSION,
  strategies: [
    defineCpuMode({
      name: 'vmx',
      summary: 'Hardware-assisted virtualisation: guest code in VMX non-root operation of a software processor',
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
      gives: ['secondStage', 'hardwareRoot', 'unmodifiedKernel'],
      create: createVmxMode,
    }),
  ],
})
