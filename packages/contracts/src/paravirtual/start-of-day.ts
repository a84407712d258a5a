/** The start of a paravirtual guest: what its boot protocol needs to build page tables and start information. */

import type { Gpa } from '../base/address.ts'
import type { GuestMemory } from '../memory/guest-memory.ts'

/** Given by a guest ABI with `pvEntry`, in `BootMachine.paravirtual`. Each boot begins with `begin` and ends with `start`. */
export interface ParavirtualMachine {
  /** Memory populated, no frame in use. Gives machine frame numbers in order of the guest's frame numbers. */
  begin(): ParavirtualMemory
  /** Nothing is written any more: tables are validated, rings connected. Throws where the tables break a rule: the boot protocol built them. */
  start(places: ParavirtualPlaces): void
}

export interface ParavirtualMemory {
  readonly guestMemory: GuestMemory
  readonly machineFrames: Readonly<Uint32Array>
  /** Guest-physical address of the guest's frame `n`. */
  addressOf(frame: number): Gpa
  /** Machine address. */
  readonly sharedInfo: number
  readonly storePort: number
  readonly consolePort: number
  /** The name that start information begins with: `xen-3.0-x86_64`. */
  readonly magic: string
}

/** By machine frame numbers. */
export interface ParavirtualPlaces {
  readonly root: number
  readonly store: number
  readonly console: number
}
