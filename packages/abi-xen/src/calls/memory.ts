/** The domain's amount of memory, and its increase and decrease. (Xen, "public/memory.h") */

import type { Call, Handler } from '../call.ts'
import { fail } from '../facts.ts'
import { extents, selfOf } from './extents.ts'
import { toNumber } from '../numbers.ts'

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
