/** Configuration that a machine provides to its firmware, by key and by file. An I/O model offers it, boot protocols and devices fill it. */

import { token } from '../base/token.ts'

/**
 * The bytes, or a function that makes them each time the guest selects the item: for content that depends on the firmware's choices (tables that
 * contain PCI addresses). Their length must not change.
 */
export type FirmwareItem = Uint8Array | (() => Uint8Array)

/** Devices obtain it from `DeviceContext.capability`, boot protocols from `BootMachine.capability`. */
export interface FirmwareConfiguration {
  /** A file for firmware, as `etc/e820`. A later one of the same name replaces it. */
  addFile(name: string, content: FirmwareItem): void
  /** An item by number. */
  addItem(key: number, content: FirmwareItem): void
}
export const FirmwareConfiguration = token<FirmwareConfiguration>('FirmwareConfiguration')
