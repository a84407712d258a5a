/** Options of the KVM interface in a configuration. */

import { z } from 'zod'

export const kvmOptions = z.strictObject({
  /** kvm-clock. */
  clock: z.boolean().default(true),
  stealTime: z.boolean().default(true),
  /** Interrupts that end without an exit. */
  pvEoi: z.boolean().default(true),
  /** What leaf 0x40000010 says of the local APIC's timer: @nonroot/io-emulated's runs at 1 GHz. */
  apicTimerHz: z.number().int().positive().default(1_000_000_000),
})

export type KvmOptions = z.output<typeof kvmOptions>
