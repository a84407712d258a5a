/** Memory of a guest that has its own physical addresses: the hypervisor's pages in it, and increase and decrease of memory. (Xen, "public/memory.h") */

import { extents, selfOf } from '../calls/extents.ts'
import { isSelf, statusCode, type Call, type Handler } from '../call.ts'
import type { Domain } from '../domain.ts'
import { fail } from '../facts.ts'
import { MOST_FRAMES } from '../grants/table.ts'
import { toNumber } from '../numbers.ts'

const SPACE = { sharedInfo: 0, grantTable: 1 } as const

/** Shows one of the hypervisor's pages at a frame of the guest's. Where it was shown before, its content stays behind. */
function show(domain: Domain, space: number, index: number, frame: number): number {
  const { hvm, grants } = domain
  const { pages } = hvm!
  if (space !== SPACE.sharedInfo && space !== SPACE.grantTable) return fail('ENOSYS')
  if (space === SPACE.grantTable && (index >= MOST_FRAMES || !grants.setup(index + 1))) return fail('EINVAL')
  const before = space === SPACE.sharedInfo ? hvm!.sharedInfoFrame : hvm!.grantFrames.get(index)
  if (before === frame) return 0
  const at = pages.take(frame)
  if (typeof at === 'string') return statusCode(at)
  if (space === SPACE.sharedInfo) {
    domain.moveSharedInfo(at)
    hvm!.sharedInfoFrame = frame
  } else {
    grants.move(index, at)
    hvm!.grantFrames.set(index, frame)
  }
  if (before !== undefined) pages.release(before)
  return 0
}

/** domid, size, space, idx, gpfn. */
const addToPhysmap: Handler = (call) => {
  const argument = call.read(call.args[1]!, 24)
  if (!argument) return fail('EFAULT')
  if (!isSelf(argument.getUint16(0, true))) return fail('ESRCH')
  const index = toNumber(argument.getBigUint64(8, true))
  return show(call.domain, argument.getUint32(4, true), index, toNumber(argument.getBigUint64(16, true)))
}

/** On entry the guest's frame number, which stays. */
const populate = ({ domain }: Call, entry: DataView): boolean =>
  domain.hvm!.pages.exists(toNumber(entry.getBigUint64(0, true)))
const decrease = ({ domain }: Call, entry: DataView): boolean =>
  domain.hvm!.pages.discard(toNumber(entry.getBigUint64(0, true)))

const ramFrames = selfOf(({ domain }) => domain.hvm!.ramFrames)

const OPERATIONS: Readonly<Record<number, Handler>> = {
  1: extents(decrease),
  3: ramFrames,
  4: ramFrames,
  6: extents(populate),
  7: addToPhysmap,
}

/** (operation, argument). */
export const hvmMemoryOp: Handler = (call) => OPERATIONS[Number(call.args[0]! & 63n)]?.(call) ?? fail('ENOSYS')
