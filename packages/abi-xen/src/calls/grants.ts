/** Grant table operations, in lists. The domain is alone: it may use its own grants. (Xen, "public/grant_table.h") */

import { isSelf, type Call, type Handler } from '../call.ts'
import { fail } from '../facts.ts'
import { STATUS, type GrantStatus } from '../grants/facts.ts'
import { MOST_FRAMES } from '../grants/table.ts'
import { copyGrant, swapGrants, transferFrame } from './grant-copies.ts'
import { mapGrant, replaceGrant, unmapGrant } from './grant-maps.ts'
import { getVersion, setVersion, statusFrames } from './grant-versions.ts'

interface Operation {
  readonly bytes: number
  run(call: Call, argument: DataView): number | undefined
}

const OPERATIONS: Readonly<Record<number, Operation>> = {
  0: each(32, 18, mapGrant),
  1: each(24, 20, unmapGrant),
  // Set up.
  2: {
    bytes: 24,
    run(call, a) {
      const count = a.getUint32(4, true)
      const status = (value: number): void => a.setInt16(8, value, true)
      if (!isSelf(a.getUint16(0, true))) return void status(STATUS.badDomain)
      // A guest with memory of its own maps them by memory_op.
      const frames = count > MOST_FRAMES || !call.domain.tables ? undefined : call.domain.grants.setup(count)
      if (!frames) return void status(STATUS.general)
      const list = new DataView(new ArrayBuffer(count * 8))
      frames.forEach((frame, n) => list.setBigUint64(n * 8, BigInt(frame), true))
      if (!call.write(a.getBigUint64(16, true), list)) return fail('EFAULT')
      status(STATUS.ok)
      return undefined
    },
  },
  4: each(24, 16, transferFrame),
  5: each(40, 36, copyGrant),
  // Query size.
  6: {
    bytes: 16,
    run(call, a) {
      if (!isSelf(a.getUint16(0, true))) return void a.setInt16(12, STATUS.badDomain, true)
      a.setUint32(4, call.domain.grants.frameCount, true)
      a.setUint32(8, MOST_FRAMES, true)
      a.setInt16(12, STATUS.ok, true)
      return undefined
    },
  },
  7: each(24, 20, replaceGrant),
  8: { bytes: 4, run: setVersion },
  9: { bytes: 16, run: statusFrames },
  10: { bytes: 8, run: getVersion },
  11: each(12, 8, swapGrants),
}

/** An operation that gives each structure a status of its own, there. */
function each(bytes: number, at: number, run: (call: Call, argument: DataView) => GrantStatus): Operation {
  return { bytes, run: (call, a) => void a.setInt16(at, run(call, a), true) }
}

const PIECE = 64

/** (operation, structures, count). */
export const grantTableOp: Handler = (call) => {
  const operation = OPERATIONS[call.u32(0)]
  if (!operation) return fail('ENOSYS')
  const total = call.u32(2)
  const list = call.args[1]!
  for (let n = 0; n < total; n++) {
    const at = list + BigInt(n * operation.bytes)
    if (n === PIECE) return call.again(call.args[0]!, at, BigInt(total - n))
    const argument = call.read(at, operation.bytes)
    if (!argument) return fail('EFAULT')
    const failed = operation.run(call, argument)
    if (failed !== undefined) return failed
    if (!call.write(at, argument)) return fail('EFAULT')
  }
  return 0
}
