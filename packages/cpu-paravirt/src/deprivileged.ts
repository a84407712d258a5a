/** A vCPU as the handlers of its exceptions see it. */

import type { PvVcpu, TableCalls } from '@nonroot/contracts'
import type { Core, StopReason } from '@nonroot/x86'
import type { Frames } from './entry/frames.ts'
import type { GuestState } from './guest-state.ts'
import type { ExceptionHooks } from './hooks.ts'
import type { Surroundings } from './surroundings.ts'

/** Entries of the guest kernel that are no exceptions. */
export const ENTRIES = ['syscall', 'sysenter', 'int', 'event', 'nmi'] as const
export type Entry = (typeof ENTRIES)[number]

export interface Deprivileged {
  readonly index: number
  readonly core: Core
  readonly state: GuestState
  readonly tables: TableCalls
  readonly pv: PvVcpu
  readonly frames: Frames
  readonly hooks: ExceptionHooks
  readonly surroundings: Surroundings

  /** One instruction, its exception (if any) left in the hooks. */
  stepOnce(): StopReason | undefined
  /** Whether a store to a table was carried out (emulation/table-store.ts). */
  storeToTable(address: bigint, machine: number): boolean
  crash(reason: string): void
  /** CR2, which is in vcpu_info. */
  readFaultAddress(): bigint
  writeFaultAddress(value: bigint): void

  count(entry: Entry): void
  countException(vector: number): void
  countEmulated(name: string): void
}
