/** Options of virtio devices in a configuration. */

import { parseSize } from '@nonroot/contracts'
import { networkOptions } from '@nonroot/network/options'
import { z } from 'zod'

export const virtioOptions = z.strictObject({
  /** How guests find the devices. */
  transport: z.enum(['pci', 'mmio']).default('pci'),
  /** Ring format to offer; a driver that does not know the packed one takes the split one. */
  ring: z.enum(['split', 'packed']).default('split'),
  /** VIRTIO_F_INDIRECT_DESC */
  indirect: z.boolean().default(true),
  /** VIRTIO_F_EVENT_IDX */
  eventIndex: z.boolean().default(true),
  /** VIRTIO_F_IN_ORDER */
  inOrder: z.boolean().default(false),
  /** VIRTIO_F_NOTIFICATION_DATA */
  notificationData: z.boolean().default(false),
})
export type VirtioOptions = z.output<typeof virtioOptions>

const queueSize = z
  .number()
  .int()
  .min(4)
  .max(1024)
  .refine((size) => (size & (size - 1)) === 0, 'is not a power of two')

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
  /** What the guest reads as its serial number, up to 20 characters. The device's name where absent. */
  serial: z.string().max(20).optional(),
  queues: z.number().int().min(1).max(16).default(1),
  /** A request takes two entries and one for each stretch of memory: 1 MiB in pages is one request, as 254 stretches would make two. */
  queueSize: queueSize.default(512),
})

const port = z.strictObject({
  /** /dev/virtio-ports/NAME in a Linux guest. */
  name: z.string().min(1).max(64).optional(),
  /** hvcN rather than a port for programs. */
  console: z.boolean().default(false),
  /** Name of the console back end. The machine's console where absent. */
  backend: z.string().optional(),
})

export const consoleOptions = z.strictObject({
  /** Name of the console back end. The machine's console where absent. */
  console: z.string().optional(),
  /** Several ports instead of one console. */
  ports: z.array(port).min(1).max(31).optional(),
})

export const balloonOptions = z.strictObject({
  /** The guest may take frames back when it runs out of memory. */
  deflateOnOutOfMemory: z.boolean().default(true),
  /** The guest gives back what it has no use for without being asked. */
  freePageReporting: z.boolean().default(true),
})

const size = z.union([z.string(), z.number()]).transform((text, context): number => {
  const bytes = parseSize(text)
  if (typeof bytes === 'number') return bytes
  context.addIssue({ code: 'custom', message: bytes.problem })
  return z.NEVER
})

export const memoryOptions = z.strictObject({
  /** What is plugged and unplugged at once: a power of two, at least a page. */
  blockSize: size
    .refine((bytes) => bytes >= 4096 && Number.isInteger(Math.log2(bytes)), 'is no power of two of at least 4 KiB')
    .prefault('2 MiB'),
  /** What the guest should have at first of `machine.pluggable`. Default: all. */
  requested: size.optional(),
})

export const ninePOptions = z.strictObject({
  /** The folder to share. */
  path: z.string(),
  readOnly: z.boolean().default(false),
  /** What the guest mounts: `mount -t 9p -o trans=virtio,version=9p2000.L TAG /mnt`. */
  tag: z.string().min(1).max(31).default('host'),
})

export const socketOptions = z.strictObject({
  /** A UNIX socket of the host: `CONNECT PORT` reaches that port of the guest, and the guest's connections to port N go to `PATH_N`. */
  path: z.string(),
  /** The guest's context ID; the host's is 2. */
  cid: z.number().int().min(3).max(0xffff_fffe).default(3),
})

export const netOptions = z.strictObject({
  ...networkOptions(65_521).shape,
  /** Pairs of queues. */
  queues: z.number().int().min(1).max(8).default(1),
  queueSize: queueSize.default(256),
})
