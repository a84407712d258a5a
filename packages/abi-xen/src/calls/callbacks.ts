/** Registers entry points of the guest kernel: traps, callbacks, NMIs. (Xen, "public/arch-x86/xen.h", struct trap_info; "public/callback.h") */

import type { PvCallback } from '@nonroot/contracts'
import type { Call, Handler } from '../call.ts'
import { fail } from '../facts.ts'

const TRAP_BYTES = 16
const MOST_TRAPS = 256
const MASKS_EVENTS = 4
const CALLBACK_BYTES = 16

/** (table). It ends with address 0; no table clears all. */
export const setTrapTable: Handler = (call) => {
  const { pv } = call
  if (call.args[0] === 0n) {
    pv.clearTraps()
    return 0
  }
  for (let n = 0; n < MOST_TRAPS; n++) {
    const trap = call.read(call.args[0]! + BigInt(n * TRAP_BYTES), TRAP_BYTES)
    if (!trap) return fail('EFAULT')
    const address = trap.getBigUint64(8, true)
    if (address === 0n) return 0
    const flags = trap.getUint8(1)
    pv.setTrap({ vector: trap.getUint8(0), address, privilege: flags & 3, masksEvents: (flags & MASKS_EVENTS) !== 0 })
  }
  return 0
}

const KINDS: Readonly<Record<number, PvCallback>> = {
  0: 'event',
  1: 'failsafe',
  2: 'syscall',
  4: 'nmi',
  5: 'sysenter',
  7: 'syscall32',
}
const CALLBACK_OP = { register: 0, unregister: 1 } as const

/** (operation, argument). */
export const callbackOp: Handler = (call) => {
  const op = call.u32(0)
  if (op !== CALLBACK_OP.register && op !== CALLBACK_OP.unregister) return fail('ENOSYS')
  const argument = call.read(call.args[1]!, op === CALLBACK_OP.register ? CALLBACK_BYTES : 4)
  if (!argument) return fail('EFAULT')
  const kind = KINDS[argument.getUint16(0, true)]
  if (!kind) return fail('ENOSYS')
  if (op === CALLBACK_OP.unregister) {
    // Without these no event could be delivered.
    if (kind === 'event' || kind === 'failsafe') return fail('EINVAL')
    call.pv.setCallback(kind, 0n, false)
    return 0
  }
  call.pv.setCallback(kind, argument.getBigUint64(8, true), (argument.getUint16(2, true) & 1) !== 0)
  return 0
}

/** (event, failsafe, syscall): the older way. */
export const setCallbacks: Handler = (call) => {
  ;(['event', 'failsafe', 'syscall'] as const).forEach((kind, n) => call.pv.setCallback(kind, call.args[n]!, false))
  return 0
}

/** (operation, argument). 0: register, 1: unregister. */
export const nmiOp: Handler = (call: Call) => {
  const op = call.u32(0)
  if (op > 1) return fail('ENOSYS')
  const argument = op === 0 ? call.read(call.args[1]!, 8) : undefined
  if (op === 0 && !argument) return fail('EFAULT')
  call.pv.setCallback('nmi', argument?.getBigUint64(0, true) ?? 0n, false)
  return 0
}
