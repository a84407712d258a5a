/** How a VM ends or starts over, on a device's word. Takes effect when the current instruction is done. */

import { token } from '../base/token.ts'

export interface PowerControl {
  /** Soft-off (ACPI S5). The VM ends with `poweredOff`. */
  powerOff(): void
  /** Machine reset: every device's `reset`, vCPUs to their boot state, boot protocol again. */
  reset(): void
  /** End with a status of the guest's choice (isa-debug-exit). */
  exit(status: number): void
  /** The guest said that it crashed (panic device). Ends or degrades this VM only. */
  crashed(reason: string): void
  /** The host asks the guest to shut down: the platform's power button, if somebody listens. */
  onPowerButton(listener: () => void): () => void
}
export const PowerControl = token<PowerControl>('PowerControl')

/** How a VM ended. */
export type VmEnd =
  | { readonly state: 'poweredOff' }
  | { readonly state: 'exited'; readonly status: number }
  | { readonly state: 'crashed'; readonly reason: string; readonly vcpu?: number; readonly rip?: bigint }
  | { readonly state: 'stopped' }
