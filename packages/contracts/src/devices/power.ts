/** Ends or resets a VM at a device's request. Takes effect after the current instruction. */

import { token } from '../base/token.ts'

export interface PowerControl {
  /** Soft-off (ACPI S5). The VM ends with `poweredOff`. */
  powerOff(): void
  /** Machine reset: every device's `reset`, vCPUs to their boot state, boot protocol again. */
  reset(): void
  /** Ends with a status that the guest chose (isa-debug-exit). */
  exit(status: number): void
  /** The guest reported that it crashed (panic device). Affects this VM only. */
  crashed(reason: string): void
  /** Registers a listener for the host's request to shut down: the platform's power button. It gives whether the guest is notified. */
  onPowerButton(listener: () => boolean): () => void
}
export const PowerControl = token<PowerControl>('PowerControl')

/** How a VM ended. */
export type VmEnd =
  | { readonly state: 'poweredOff' }
  | { readonly state: 'exited'; readonly status: number }
  | { readonly state: 'crashed'; readonly reason: string; readonly vcpu?: number; readonly rip?: bigint }
  | { readonly state: 'stopped' }
