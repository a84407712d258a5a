/** What a configuration may say about reclaim. */

import { parseSize } from '@nonroot/contracts'
import { z } from 'zod'

const size = z.union([z.string(), z.number()]).transform((text, context): number => {
  const bytes = parseSize(text)
  if (typeof bytes === 'number' && bytes >= 4096) return bytes
  context.addIssue({ code: 'custom', message: typeof bytes === 'number' ? 'is less than a page' : bytes.problem })
  return z.NEVER
})

const share = {
  /** Pages that the scan for equal ones looks at in a second. */
  pagesPerSecond: z.number().int().min(1).max(1_000_000).default(5000),
}

const swap = {
  /** Part of the host's memory that compressed pages may fill. 0: none is compressed. */
  compressed: z.number().min(0).max(0.9).default(0.25),
  /** Pages that are as they were read from a raw disk image of the VM are not kept, and read from there again. */
  dropUnchanged: z.boolean().default(true),
  /** Pages whose accessed marks are read in a second, per VM, while memory is short. */
  pagesPerSecond: z.number().int().min(1).max(1_000_000).default(2000),
  /** A file for pages that do not compress, and beyond `compressed`. It is created, and removed at the end. */
  file: z.string().min(1).optional(),
  size: size.prefault('1 GiB'),
}

const policy = {
  /** How much dearer idle memory is than memory in use, as the part of it that is taken in the end: 0 all VMs alike, up to 0.99. */
  idleTax: z.number().min(0).max(0.99).default(0.75),
}

export const balloonOptions = z.strictObject(policy)
export const shareOptions = z.strictObject({ ...policy, ...share })
export const swapOptions = z.strictObject({ ...policy, ...swap })
export const policyOptions = z.strictObject({
  ...policy,
  /** Which techniques, in the order of trying. `unplug` needs a memory device (virtio-mem). */
  techniques: z
    .array(z.enum(['unplug', 'balloon', 'share', 'swap']))
    .min(1)
    .refine((names) => new Set(names).size === names.length, 'names a technique twice')
    .default(['balloon', 'share', 'swap']),
  share: z.strictObject(share).prefault({}),
  swap: z.strictObject(swap).prefault({}),
})
export type SwapChoice = z.output<z.ZodObject<typeof swap>>
