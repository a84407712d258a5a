/** How much memory the domain has, and giving and taking of it. (Xen, "public/memory.h") */

import { toNumber, type Call, type Handler } from '../call.ts'
import { DOMAIN, DOMID_SELF, fail } from '../facts.ts'

const RESERVATION_BYTES = 32
/** Frames one by one before the guest's own events get a chance. */
const PIECE = 1024
/** Bits of the operation above this say how many extents are done. */
const START_SHIFT = 6n
const isSelf = (domain: number): boolean => domain === DOMID_SELF || domain === DOMAIN

const selfOf =
  (give: (call: Call) => number): Handler =>
  (call) => {
    const argument = call.read(call.args[1]!, 2)
    if (!argument) return fail('EFAULT')
    return isSelf(argument.getUint16(0, true)) ? give(call) : fail('ESRCH')
  }

/** Extents of single frames, from where the last piece ended. A result below `count` says how many went well. */
const extents =
  (step: (call: Call, view: DataView) => boolean): Handler =>
  (call) => {
    const reservation = call.read(call.args[1]!, RESERVATION_BYTES)
    if (!reservation) return fail('EFAULT')
    const list = reservation.getBigUint64(0, true)
    const count = toNumber(reservation.getBigUint64(8, true))
    const start = Number(BigInt.asUintN(48, call.args[0]! >> START_SHIFT))
    if (!isSelf(reservation.getUint16(24, true))) return fail('ESRCH')
    // Frames are the host's as they come: larger extents would have to lie together. (XSA-31, XSA-158)
    if (reservation.getUint32(16, true) !== 0) return start
    if (start > count || count > 0xffff_ffff) return fail('EINVAL')
    const end = Math.min(count, start + PIECE)
    for (let n = start; n < end; n++) {
      const at = list + BigInt(n) * 8n
      const entry = list === 0n ? new DataView(new ArrayBuffer(8)) : call.read(at, 8)
      if (!entry || !step(call, entry)) return n
      if (list !== 0n && !call.write(at, entry)) return n
    }
    if (end === count) return count
    return call.again((BigInt(end) << START_SHIFT) | (call.args[0]! & 63n), call.args[1]!)
  }

/** On entry the guest's frame number, on return the machine's. */
const populate = ({ tables }: Call, entry: DataView): boolean => {
  const frame = tables.takeFrame()
  if (frame === undefined) return false
  tables.setMachineToPhysical(frame, entry.getBigUint64(0, true))
  entry.setBigUint64(0, BigInt(frame), true)
  return true
}
const increase = ({ tables }: Call, entry: DataView): boolean => {
  const frame = tables.takeFrame()
  if (frame !== undefined) entry.setBigUint64(0, BigInt(frame), true)
  return frame !== undefined
}
const decrease = ({ tables }: Call, entry: DataView): boolean =>
  tables.giveBack(toNumber(entry.getBigUint64(0, true))) === 'ok'

const machineToPhysical: Handler = (call) => {
  const { start, end, firstFrame } = call.tables.machineToPhysical
  const view = new DataView(new ArrayBuffer(24))
  view.setBigUint64(0, start, true)
  view.setBigUint64(8, end, true)
  view.setBigUint64(16, BigInt(firstFrame + call.tables.machineFrames - 1), true)
  return call.write(call.args[1]!, view) ? 0 : fail('EFAULT')
}

const OPERATIONS: Readonly<Record<number, Handler>> = {
  0: extents(increase),
  1: extents(decrease),
  2: ({ tables }) => tables.machineFrames - 1,
  3: selfOf(({ tables }) => tables.frameCount),
  4: selfOf(({ tables }) => tables.mostFrames),
  6: extents(populate),
  12: machineToPhysical,
}

/** (operation, argument). */
export const memoryOp: Handler = (call) => OPERATIONS[Number(call.args[0]! & 63n)]?.(call) ?? fail('ENOSYS')
