/** The type of an exit handler, and its possible results. The handlers themselves are in hypervisor/exit-handlers.ts. */

import type { LEFT, NEXT, PROCEED } from '@nonroot/x86'
import type { VmxGuest } from '../guest.ts'
import type { ExitReasonName } from '../tables/exit-reasons.ts'

/** Results beyond the processor's own, for exits caused by a memory access: repeat the access. */
export const RETRY = 3
/** Carry the access out on the bus, at the frame in the paging state. */
export const DEVICE = 4
/** Raise the fault in the guest; its error code is in the paging state. */
export const GUEST_FAULT = 5
export type ExitResult =
  typeof PROCEED | typeof NEXT | typeof LEFT | typeof RETRY | typeof DEVICE | typeof GUEST_FAULT | 2

export type ExitHandler = (guest: VmxGuest) => ExitResult
/** One handler per exit reason: a missing one is a type error. */
export type ExitHandlers = Readonly<Record<ExitReasonName, ExitHandler>>
