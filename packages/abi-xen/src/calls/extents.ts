/** Lists of frames in memory calls: processed in pieces, each continued where the last one ended. (Xen, "public/memory.h", struct xen_memory_reservation) */

import { isSelf, type Call, type Handler } from '../call.ts'
import { fail } from '../facts.ts'
import { toNumber } from '../numbers.ts'

const RESERVATION_BYTES = 32
/** Frames one by one before the guest's own events get a chance. */
const PIECE = 1024
/** Bits of the operation above this say how many extents are done. */
const START_SHIFT = 6n

export const selfOf =
  (give: (call: Call) => number): Handler =>
  (call) => {
    const argument = call.read(call.args[1]!, 2)
    if (!argument) return fail('EFAULT')
    return isSelf(argument.getUint16(0, true)) ? give(call) : fail('ESRCH')
  }

/** Extents of single frames, from where the last piece ended. A result below `count` says how many went well. */
export const extents =
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
