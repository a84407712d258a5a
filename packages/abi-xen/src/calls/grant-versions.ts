/** The layout of a grant table, and the frames that version 2 has for marks. (Xen, "public/grant_table.h") */

import { isSelf, type Call } from '../call.ts'
import { fail } from '../facts.ts'
import { STATUS } from '../grants/facts.ts'
import { RESERVED_ENTRIES } from '../grants/table.ts'

/** Gives the version in force. No entry may be in use, but those of the toolstack. */
export function setVersion({ domain: { grants, grantUses, tables } }: Call, a: DataView): number | undefined {
  const version = a.getUint32(0, true)
  if (version !== 1 && version !== 2) return fail('EINVAL')
  if (version === grants.version) return undefined
  // Guests with memory of their own would map its marks by memory_op.
  if (!tables) return fail('ENOSYS')
  if (grantUses.isAnyUsed(RESERVED_ENTRIES)) return fail('EBUSY')
  const failed = grants.setVersion(version)
  return failed && fail(failed)
}

/** (domain), version out. */
export function getVersion({ domain }: Call, a: DataView): number | undefined {
  if (!isSelf(a.getUint16(0, true))) return fail('ESRCH')
  a.setUint32(4, domain.grants.version, true)
  return undefined
}

/** Count, domain, status out, list. */
export function statusFrames(call: Call, a: DataView): number | undefined {
  const status = (value: number): void => a.setInt16(6, value, true)
  if (!isSelf(a.getUint16(4, true))) return void status(STATUS.badDomain)
  const frames = call.domain.grants.statusFrames(a.getUint32(0, true))
  if (!frames) return void status(STATUS.general)
  const list = new DataView(new ArrayBuffer(frames.length * 8))
  frames.forEach((frame, n) => list.setBigUint64(n * 8, BigInt(frame), true))
  if (!call.write(a.getBigUint64(8, true), list)) return fail('EFAULT')
  status(STATUS.ok)
  return undefined
}
