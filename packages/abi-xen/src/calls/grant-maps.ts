/** Mapping of grants into a paravirtual guest's tables, and the end of mappings. (Xen, "public/grant_table.h") */

import type { GrantPlace } from '@nonroot/contracts'
import { isSelf, type Call } from '../call.ts'
import { DOMAIN } from '../facts.ts'
import { MAP, STATUS, type GrantStatus } from '../grants/facts.ts'
import { toNumber } from '../numbers.ts'

const placeOf = (address: bigint, isEntry: boolean): GrantPlace =>
  isEntry ? { entry: toNumber(address) } : { linear: address }

/** Address, flags, reference and domain in; handle and address for devices out. All of it is done, or nothing. */
export function mapGrant({ domain, vcpu }: Call, a: DataView): GrantStatus {
  const { tables, grantUses, mappings } = domain
  const flags = a.getUint32(8, true)
  const kinds = flags & (MAP.device | MAP.host)
  if (kinds === 0) return STATUS.badReference
  if (!isSelf(a.getUint16(16, true))) return STATUS.badDomain
  // Other guests would need the frame at one of their physical addresses.
  if (kinds & MAP.host && !tables) return STATUS.general
  if (mappings.isFull) return STATUS.noSpace
  const isWritable = !(flags & MAP.readOnly)
  const reference = a.getUint32(12, true)
  const frame = grantUses.begin(reference, DOMAIN, isWritable)
  if (typeof frame !== 'number') return frame.status
  const isEntry = (flags & MAP.containsEntry) !== 0
  // Processors get a mapping only if one was asked for. (XSA-224)
  if (kinds & MAP.host) {
    const entry = {
      isWritable,
      isUser: (flags & MAP.application) !== 0,
      available: (flags >>> MAP.availableShift) & 7,
    }
    const status = tables!.mapGrant(vcpu.index, placeOf(a.getBigUint64(0, true), isEntry), frame, entry)
    if (status !== 'ok') {
      grantUses.end(reference, isWritable)
      return isEntry ? STATUS.general : STATUS.badAddress
    }
  }
  a.setUint32(20, mappings.add({ reference, frame, isWritable, isEntry, kinds }), true)
  a.setBigUint64(24, BigInt(frame) * 4096n, true)
  return STATUS.ok
}

/** Addresses of 0 leave that kind of mapping as it is. */
export const unmapGrant = (call: Call, a: DataView): GrantStatus =>
  end(call, a.getUint32(16, true), { host: a.getBigUint64(0, true), device: a.getBigUint64(8, true) })

/** The entry becomes that of another address, which is left without. */
export const replaceGrant = (call: Call, a: DataView): GrantStatus =>
  end(call, a.getUint32(16, true), { host: a.getBigUint64(0, true), device: 0n }, a.getBigUint64(8, true))

function end(
  { domain, vcpu }: Call,
  handle: number,
  at: { readonly host: bigint; readonly device: bigint },
  replacement?: bigint,
): GrantStatus {
  const { tables, grantUses, mappings } = domain
  const mapping = mappings.at(handle)
  if (!mapping) return STATUS.badHandle
  const { frame, isWritable, isEntry, kinds, reference } = mapping
  if (at.device !== 0n && at.device !== BigInt(frame) * 4096n) return STATUS.badDeviceAddress
  if (replacement !== undefined && isEntry) return STATUS.general
  let ended = at.device === 0n ? 0 : kinds & MAP.device
  if (at.host !== 0n && kinds & MAP.host) {
    const status = tables!.unmapGrant(vcpu.index, placeOf(at.host, isEntry), frame, isWritable, replacement)
    if (status !== 'ok') return STATUS.general
    ended |= MAP.host
  }
  if (mappings.end(handle, ended)) grantUses.end(reference, isWritable)
  return STATUS.ok
}
