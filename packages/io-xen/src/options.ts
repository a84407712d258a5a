/** Options of Xen's devices in a configuration. */

import { networkOptions } from '@nonroot/network/options'
import { z } from 'zod'

export const blockOptions = z.strictObject({
  /** The disk image: a file, or `memory://64MiB`. */
  image: z.string(),
  readOnly: z.boolean().default(false),
  /** `raw`, `qcow2`. By the name's ending where absent. */
  format: z.string().optional(),
  /** What is written stays in memory and is forgotten with the VM. */
  temporary: z.boolean().default(false),
  /** Where the image may have its backing files. */
  backingFiles: z.enum(['beside', 'anywhere']).default('beside'),
  /** What the guest calls it, `xvda` to `xvdz`. The first that is free where absent. */
  target: z
    .string()
    .regex(/^xvd[a-z]$/, 'is none of xvda to xvdz')
    .optional(),
})

export const netOptions = z.strictObject(networkOptions(65_521).shape)
