/** Options of the PC and its devices in a configuration. */

import { z } from 'zod'

export const pcOptions = z.strictObject({
  /** The machine's console is the first serial port. */
  serial: z.boolean().default(true),
  /** isa-debug-exit at port 0xF4: lets a guest end its VM with a status. */
  debugExit: z.boolean().default(true),
  /** Where ports 0xE9 and 0x402 go: nowhere, the log (debug level), or the console. */
  debugConsole: z.enum(['off', 'log', 'console']).default('log'),
  /** 8042 with a keyboard. */
  keyboard: z.boolean().default(true),
  /** VGA text memory and registers. */
  vga: z.boolean().default(true),
  /** High-precision event timers. Off: a guest has better clocks, and each access is an exit. */
  hpet: z.boolean().default(false),
  /** What firmware (SeaBIOS) finds in fw_cfg. */
  firmware: z
    .strictObject({
      /** Its screen goes to the serial port. */
      serialConsole: z.boolean().default(true),
      /** Offer the boot menu. */
      bootMenu: z.boolean().default(true),
      /** Open Firmware paths, most wanted first. */
      bootOrder: z.array(z.string()).default([]),
    })
    .prefault({}),
})

export type PcOptions = z.output<typeof pcOptions>

export const uartOptions = z.strictObject({
  /** 1 to 4, as in COM2. */
  com: z.number().int().min(1).max(4).default(2),
  /** Name of the console back end. */
  console: z.string().optional(),
})

/** Of a disk, as virtio-blk's: a stack file says which of the two it is by its `kind` alone. */
export const diskOptions = z.strictObject({
  /** The disk image: a file, or `memory://64MiB`. */
  image: z.string(),
  /** ATA has no read-only disks: the guest notices when its first write fails. */
  readOnly: z.boolean().default(false),
  /** `raw`, `qcow2`. By the name's ending where absent. */
  format: z.string().optional(),
  /** What is written stays in memory and is forgotten with the VM. */
  temporary: z.boolean().default(false),
  /** Where the image may have its backing files. */
  backingFiles: z.enum(['beside', 'anywhere']).default('beside'),
  /** What the guest reads as its serial number, up to 20 characters. The device's name where absent. */
  serial: z.string().max(20).optional(),
})

const probability = z.number().min(0).max(1)

/** Of a network card, as virtio-net's: the network that it is plugged into. */
export const cardOptions = z.strictObject({
  /** `user`: this process forwards what the guest sends through its own sockets. `none`: the cable is not plugged. */
  network: z.string().default('user'),
  /** As `52:54:00:12:34:56`. The network chooses where absent. */
  mac: z.string().optional(),
  mtu: z.number().int().min(1280).max(16_110).default(1500),
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
})
