/** What this package offers a stack. */

import { API_VERSION, defineCpuMode, definePlugin } from '@nonroot/contracts'
import { z } from 'zod'
import { createTranslateMode } from './mode.ts'

export default definePlugin({
  name: '@nonroot/cpu-translate',
  apiVersion: API_VERSION,
  strategies: [
    defineCpuMode({
      name: 'translate',
      summary:
        'Full virtualisation in software: user code runs directly, 64-bit kernel code is translated; needs no VMX',
      options: z.strictObject({
        codeCacheMiB: z
          .number()
          .int()
          .min(4)
          .max(512)
          .optional()
          .describe("MiB for the processor's decoded code of each vCPU (default 128)"),
        translationCacheMiB: z
          .number()
          .int()
          .min(1)
          .max(64)
          .optional()
          .describe('MiB for translated kernel code of each vCPU (default 8)'),
        tiers: z
          .enum(['interpreter', 'both'])
          .optional()
          .describe('tiers of the processor: the interpreter alone, or the compiler behind it (default both)'),
        translate: z
          .enum(['on', 'off'])
          .optional()
          .describe(
            'off: kernel code runs deprivileged as it is, by trap and emulate alone; sensitive instructions that do not trap then give wrong results (default on)',
          ),
      }),
      gives: ['hardwareRoot', 'unmodifiedKernel'],
      create: createTranslateMode,
    }),
  ],
})
