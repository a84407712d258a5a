/** Options of the PC and its devices in a configuration. */

import { networkOptions } from '@nonroot/network/options'
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

/** Of a network card, as virtio-net's: the network that it is plugged into. */
export const cardOptions = networkOptions(16_110)
