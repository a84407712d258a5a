/** Records what exit handlers find in the exit-information fields. */

import { decodeExit, type VmxExit } from '../exit/exit-qualification.ts'
import { EXIT_REASON_NAMES, type ExitReasonName } from '../tables/exit-reasons.ts'
import type { ExitHandler, ExitHandlers } from '../exit/exit-handler.ts'
import type { VmxVcpu } from '../vcpu.ts'

export interface RecordedExit {
  readonly exit: VmxExit
  readonly qualification: bigint
  readonly rip: bigint
  /** Interruption information of the exit, and of the event whose delivery it interrupted; 0 if invalid. */
  readonly interruption: number
  readonly vectoring: number
  readonly vectoringErrorCode: number
  readonly length: number
  readonly instruction: number
}

/** Records exits for the given reasons (default: all). `instead` replaces handlers. */
export function recordExits(
  vcpu: VmxVcpu,
  reasons: readonly ExitReasonName[] = EXIT_REASON_NAMES,
  instead: Partial<Record<ExitReasonName, ExitHandler>> = {},
): RecordedExit[] {
  const seen: RecordedExit[] = []
  const { vmcs, handlers } = vcpu
  const wrap = (reason: ExitReasonName): ExitHandler => {
    const handler = instead[reason] ?? handlers[reason]
    if (!reasons.includes(reason)) return handler
    return (v) => {
      seen.push({
        exit: decodeExit(vmcs)!,
        qualification: vmcs.read('exitQualification'),
        rip: vmcs.read('guestRip'),
        interruption: vmcs.read('exitInterruptionInfo'),
        vectoring: vmcs.read('idtVectoringInfo'),
        vectoringErrorCode: vmcs.read('idtVectoringErrorCode'),
        length: vmcs.read('exitInstructionLength'),
        instruction: vmcs.read('exitInstructionInfo'),
      })
      return handler(v)
    }
  }
  vcpu.handlers = Object.fromEntries(EXIT_REASON_NAMES.map((reason) => [reason, wrap(reason)])) as ExitHandlers
  return seen
}
