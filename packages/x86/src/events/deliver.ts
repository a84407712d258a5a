/**
 * Delivery of exceptions and interrupts: hooks, double and triple faults. A single delivery is in gate.ts. The saved RIP is the `rip` slot. (SDM Vol.
 * 3A, "Interrupt and Exception Handling")
 */
import { GuestFault, Left, type Core } from '../state/core.ts'
import { S } from '../state/layout.ts'
import { DR6, FLAG, VECTOR } from '../state/register-bits.ts'
import { SHADOW, setShadow } from '../state/shadow.ts'
import { EVENT, type DeliveredEvent } from '../state/hooks.ts'
import { enterDebugHandler } from './debug.ts'
import { deliverThroughTable } from './gate.ts'
import { hasErrorCode, isContributory } from './vectors.ts'

/** `stop`: it exited to the hypervisor. */
export type Delivery = 'delivered' | 'shutdown' | 'stop'


/** An exception that the instruction at RIP raised (or, for traps, the one before). */
export function deliverException(core: Core, vector: number, errorCode: number): Delivery {
  // It may have been raised by the delivery of INT n or similar: `core.delivering` is then still that event, for the hook.
  const left = core.hooks?.exception(vector, errorCode) === true
  core.delivering = undefined
  core.unblocksNmi = false
  if (left) {
    // The exit has reported the matched conditions.
    if (vector === VECTOR.DB) core.pendingDebug = 0
    return 'stop'
  }
  noteException(core, vector)
  return deliver(core, { kind: EVENT.exception, vector, errorCode, hasErrorCode: hasErrorCode(vector), length: 0 })
}

/** An external interrupt; the caller has checked IF, blocking and the interrupt shadow. */
export function deliverInterrupt(core: Core, vector: number, kind: 'external' | 'nmi' = 'external'): Delivery {
  if (kind === 'nmi') return deliver(core, { kind: EVENT.nmi, vector: 2, errorCode: 0, hasErrorCode: false, length: 0 })
  return deliver(core, { kind: EVENT.external, vector, errorCode: 0, hasErrorCode: false, length: 0 })
}

/** What an exception changes beside its delivery: CR2, DR6. Not for events that VM entry injects. */
function noteException(core: Core, vector: number): void {
  if (vector === VECTOR.PF) {
    core.set32(S.cr2, core.paging.faultLow)
    core.set32(S.cr2 + 4, core.paging.faultHigh)
  } else if (vector === VECTOR.DB) {
    // General detect is an ordinary fault; breakpoints push RF unchanged.
    if (core.pendingDebug & DR6.generalDetect) core.set32(S.flags, core.get32(S.flags) | FLAG.RF)
    enterDebugHandler(core)
  }
}

/** Delivers any event, and the faults that its delivery raises. Used by VM entry's event injection. */
export function deliver(core: Core, event: DeliveredEvent): Delivery {
  let current = event
  for (;;) {
    core.delivering = current
    // An NMI blocks the next one, whether or not its delivery completes. (SDM Vol. 3A, "Handling Multiple NMIs")
    if (current.kind === EVENT.nmi) core.set32(S.nmiBlocked, 1)
    try {
      const left = current.length ? deliverBehind(core, current) : deliverThroughTable(core, current)
      core.delivering = undefined
      if (left) return 'stop'
      setShadow(core, SHADOW.none)
      return 'delivered'
    } catch (fault) {
      if (fault instanceof Left) {
        core.delivering = undefined
        return 'stop'
      }
      if (!(fault instanceof GuestFault)) throw fault
      const next = after(core, current, fault)
      if (next === 'shutdown' || next === 'stop') {
        core.delivering = undefined
        return next
      }
      current = next
    }
  }
}

/**
 * INT n and similar, injected: the saved RIP is that after the instruction, and a fault during delivery belongs to the instruction. (SDM Vol. 3C,
 * "Event Injection", "Details of Vectored-Event Injection")
 */
function deliverBehind(core: Core, event: DeliveredEvent): boolean {
  const rip = core.get64(S.rip)
  core.set64(S.rip, core.ripBehind(event.length))
  let left = true
  try {
    left = deliverThroughTable(core, event)
  } catch (fault) {
    core.set64(S.rip, rip)
    throw fault
  }
  if (left) core.set64(S.rip, rip)
  return left
}

/** The consequence of a fault during the delivery of `current`. */
function after(core: Core, current: DeliveredEvent, fault: GuestFault): DeliveredEvent | 'shutdown' | 'stop' {
  const { vector, errorCode } = fault
  const exception = current.kind === EVENT.exception
  if (exception && current.vector === VECTOR.DF) {
    // Neither a triple fault nor a double fault that exits counts as an exit during event delivery.
    core.delivering = undefined
    core.hooks?.tripleFault()
    return core.hooks ? 'stop' : 'shutdown'
  }
  if (core.hooks?.exception(vector, errorCode)) return 'stop'
  noteException(core, vector)
  const first = current.vector
  const double =
    exception &&
    ((isContributory(first) && isContributory(vector)) ||
      (first === VECTOR.PF && (vector === VECTOR.PF || isContributory(vector))))
  if (!double) return { kind: EVENT.exception, vector, errorCode, hasErrorCode: hasErrorCode(vector), length: 0 }
  core.delivering = undefined
  if (core.hooks?.exception(VECTOR.DF, 0)) return 'stop'
  return { kind: EVENT.exception, vector: VECTOR.DF, errorCode: 0, hasErrorCode: true, length: 0 }
}
