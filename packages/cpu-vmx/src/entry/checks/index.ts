/**
 * The checks on VM entry, in the SDM's order. A failed entry names the check. Complete for the controls that `CONTROLS` implements. (SDM Vol. 3C,
 * "Checks on VMX Controls and Host-State Area", "Checking and Loading Guest State")
 */

import { CONTROL_CHECKS } from './control.ts'
import type { EntryCheck, EntryCheckContext } from './entry-check.ts'
import { GUEST_SEGMENT_CHECKS } from './guest-segment.ts'
import { GUEST_REGISTER_CHECKS, GUEST_STATE_CHECKS } from './guest-state.ts'
import { HOST_STATE_CHECKS } from './host-state.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'

export type { EntryCheck, EntryCheckArea, EntryCheckContext } from './entry-check.ts'

/** Every check, in the order in which they are made. */
export const ENTRY_CHECKS: readonly EntryCheck[] = [
  ...CONTROL_CHECKS,
  ...HOST_STATE_CHECKS,
  ...GUEST_REGISTER_CHECKS,
  ...GUEST_SEGMENT_CHECKS,
  ...GUEST_STATE_CHECKS,
]

/** The first check that fails, if any. */
export const failedEntryCheck = (vmcs: Vmcs, context: EntryCheckContext): EntryCheck | undefined =>
  ENTRY_CHECKS.find((check) => !check.holds(vmcs, context))
