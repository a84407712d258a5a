/** What a machine tells the firmware that runs on it, by key and by file. An I/O model offers it, boot protocols and devices fill it. */

import { token } from '../base/token.ts'

/**
 * The bytes, or a function that makes them each time the guest selects the item: for what firmware's own choices change (tables that name
 * where it has put PCI). Their length must not change.
 */
export type FirmwareItem = Uint8Array | (() => Uint8Array)

/** Devices find it by `DeviceContext.capability`, boot protocols by `BootMachine.capability`. */
export interface FirmwareConfiguration {
  /** A file for firmware, as `etc/e820`. A later one of the same name replaces it. */
  addFile(name: string, content: FirmwareItem): void
  /** An item by number. */
  addItem(key: number, content: FirmwareItem): void
}
export const FirmwareConfiguration = token<FirmwareConfiguration>('FirmwareConfiguration')
