/** Options of virtio devices in a configuration. */

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

const probability = z.number().min(0).max(1)

/** The network that a card is plugged into. */
const networkOptions = {
  /** `user`: this process forwards what the guest sends through its own sockets. `none`: the cable is not plugged. */
  network: z.string().default('user'),
  /** As `52:54:00:12:34:56`. The network chooses where absent. */
  mac: z.string().optional(),
  mtu: z.number().int().min(1280).max(65521).default(1500),
  /** `HOST:PORT:GUESTPORT`: ports of the host that lead into the guest. */
  forward: z.array(z.string()).optional(),
  /** Ports of the host's loopback that the gateway's address leads to: those, or all. */
  loopback: z.union([z.literal('open'), z.array(z.number().int().min(1).max(65535))]).optional(),
  /** Where the guest may connect to, and may not: `192.0.2.0/24`, `192.0.2.1:443`. */
  allow: z.array(z.string()).optional(),
  deny: z.array(z.string()).optional(),
  /** A file that all frames are written to, as Wireshark opens it. */
  capture: z.string().optional(),
  /** Frames lost, late, twice and out of order, for tests. */
  impair: z
    .strictObject({
      loss: probability.optional(),
      duplicate: probability.optional(),
      reorder: probability.optional(),
      delayMs: z.number().min(0).max(10_000).optional(),
      seed: z.number().int().optional(),
    })
    .optional(),
}

export const netOptions = z.strictObject({
  ...networkOptions,
  /** Pairs of queues. */
  queues: z.number().int().min(1).max(8).default(1),
  queueSize: queueSize.default(256),
})
