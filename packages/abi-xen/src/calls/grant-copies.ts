/** Copies between grants and own frames, transfer of a frame, and exchange of two entries. (Xen, "public/grant_table.h") */

import { isSelf, type Call } from '../call.ts'
import { DOMAIN, DOMID_SELF } from '../facts.ts'
import { ENTRY, STATUS, type GrantStatus } from '../grants/facts.ts'
import { toNumber } from '../numbers.ts'

const PAGE = 4096
const COPY = { sourceReference: 1, targetReference: 2 } as const

interface Side {
  readonly frame: number
  covers(start: number, length: number): boolean
  close(): void
}

/** One side's frame, held until it is closed. */
function open(
  { domain }: Call,
  a: DataView,
  at: number,
  isReference: boolean,
  isWritable: boolean,
): Side | GrantStatus {
  const { frames, grantUses } = domain
  const who = a.getUint16(at + 8, true)
  if (!isReference) {
    // Of others there are only grants.
    if (who !== DOMID_SELF) return STATUS.denied
    const frame = toNumber(a.getBigUint64(at, true))
    if (frames.hold(frame, isWritable) !== 'ok') return STATUS.badPage
    return { frame, covers: () => true, close: () => frames.release(frame, isWritable) }
  }
  if (!isSelf(who)) return STATUS.badDomain
  const reference = a.getUint32(at, true)
  const frame = grantUses.begin(reference, DOMAIN, isWritable, true)
  if (typeof frame !== 'number') return frame.status
  return {
    frame,
    covers: (start, length) => grantUses.covers(reference, start, length),
    close: () => grantUses.end(reference, isWritable),
  }
}

/** Source and target (reference or frame, domain, offset), length, flags. */
export function copyGrant(call: Call, a: DataView): GrantStatus {
  const [from, to, length] = [a.getUint16(10, true), a.getUint16(26, true), a.getUint16(32, true)]
  const flags = a.getUint16(34, true)
  if (from + length > PAGE || to + length > PAGE) return STATUS.badCopy
  const source = open(call, a, 0, (flags & COPY.sourceReference) !== 0, false)
  if (typeof source === 'number') return source
  const target = open(call, a, 16, (flags & COPY.targetReference) !== 0, true)
  if (typeof target === 'number') {
    source.close()
    return target
  }
  const isCovered = source.covers(from, length) && target.covers(to, length)
  if (isCovered && length > 0) {
    const { frames, hostMemory } = call.domain
    const [read, written] = [frames.hostAddress(source.frame * PAGE)!, frames.hostAddress(target.frame * PAGE)!]
    hostMemory.bytes.copyWithin(written + to, read + from, read + from + length)
    hostMemory.noteWrite((written + to) as typeof written, length)
  }
  target.close()
  source.close()
  return isCovered ? STATUS.ok : STATUS.badCopy
}

/** A frame to whom an entry accepts it from. To another domain it would go without its use; so it does here, where there is none. */
export function transferFrame({ domain }: Call, a: DataView): GrantStatus {
  const { tables, grants } = domain
  if (!tables) return STATUS.badPage
  if (!isSelf(a.getUint16(8, true))) return STATUS.badDomain
  const [frame, reference] = [toNumber(a.getBigUint64(0, true)), a.getUint32(12, true)]
  const entry = grants.entry(reference)
  if (!entry) return STATUS.badReference
  // Bits of uses and of transfers are not to be there: one frame for an entry.
  if (entry.flags !== ENTRY.acceptTransfer || entry.domain !== DOMAIN) return STATUS.badReference
  if (tables.steal(frame) !== 'ok') return STATUS.badPage
  grants.setFlags(reference, ENTRY.committed)
  grants.setFrame(reference, frame)
  grants.setFlags(reference, ENTRY.completed)
  return STATUS.ok
}

/** Two references. */
export function swapGrants({ domain }: Call, a: DataView): GrantStatus {
  const { grants, grantUses } = domain
  const [one, other] = [a.getUint32(0, true), a.getUint32(4, true)]
  if (!grants.entry(one) || !grants.entry(other)) return STATUS.badReference
  if (grantUses.isUsed(one) || grantUses.isUsed(other)) return STATUS.again
  grants.swap(one, other)
  return STATUS.ok
}
