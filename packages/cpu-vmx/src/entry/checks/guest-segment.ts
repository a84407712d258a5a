/** Checks on the guest's segment and descriptor-table registers. (SDM Vol. 3C, "Checks on Guest Segment Registers" and the section after it) */

import { CR0_64, FLAG_64, RIGHTS } from '@nonroot/contracts'
import { guest64, unrestricted, isCanonical, guest } from './entry-check.ts'
import type { Holds, EntryCheck } from './entry-check.ts'
import type { Vmcs } from '../../vmcs/vmcs.ts'
import type { SegmentFieldName } from '../../tables/vmcs-fields.ts'
const GUEST_SEGMENTS = 'Checks on Guest Segment Registers'
const GUEST_TABLES = 'Checks on Guest Descriptor-Table Registers'

const TYPE = 0xf
const RESERVED = 0xf00
/** Type of an LDT descriptor. */
const LDT = 2
export const dpl = (attributes: number): number => (attributes >>> 5) & 3

const selector = (v: Vmcs, name: SegmentFieldName): number => v.read(`guest${name}Selector`)
export const attributes = (v: Vmcs, name: SegmentFieldName): number => v.read(`guest${name}Attributes`)
const limit = (v: Vmcs, name: SegmentFieldName): number => v.read(`guest${name}Limit`)
const base = (v: Vmcs, name: SegmentFieldName): bigint => v.read(`guest${name}Base`)
const usable = (v: Vmcs, name: SegmentFieldName): boolean => !(attributes(v, name) & RIGHTS.unusable)
export const virtual8086 = (v: Vmcs): boolean => (v.read('guestRflags') & FLAG_64.VM) !== 0n
/** If bits 11:0 of the limit are not all ones, G must be 0; if bits 31:20 are not all zeros, G must be 1. */
const granularity = (v: Vmcs, name: SegmentFieldName): boolean => {
  const bytes = limit(v, name)
  const big = (attributes(v, name) & RIGHTS.granular) !== 0
  return big ? (bytes & 0xfff) === 0xfff : bytes >>> 20 === 0
}

const CODE_AND_DATA = ['Cs', 'Ss', 'Ds', 'Es', 'Fs', 'Gs'] as const
const DATA = ['Ds', 'Es', 'Fs', 'Gs'] as const
const segment = (name: SegmentFieldName, what: string, holds: Holds): EntryCheck =>
  guest(GUEST_SEGMENTS, `guest.${name.toLowerCase()}.${what}`, holds)

export const GUEST_SEGMENT_CHECKS: readonly EntryCheck[] = [
  segment('Tr', 'selector', (v) => (selector(v, 'Tr') & 4) === 0),
  segment('Ldtr', 'selector', (v) => !usable(v, 'Ldtr') || (selector(v, 'Ldtr') & 4) === 0),
  segment('Ss', 'rpl', (v) => virtual8086(v) || unrestricted(v) || (selector(v, 'Ss') & 3) === (selector(v, 'Cs') & 3)),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 'v86.base', (v) => !virtual8086(v) || base(v, name) === BigInt(selector(v, name)) << 4n),
  ),
  ...(['Tr', 'Fs', 'Gs'] as const).map((name) => segment(name, 'base', (v) => isCanonical(base(v, name)))),
  segment('Ldtr', 'base', (v) => !usable(v, 'Ldtr') || isCanonical(base(v, 'Ldtr'))),
  segment('Cs', 'base', (v) => base(v, 'Cs') >> 32n === 0n),
  ...(['Ss', 'Ds', 'Es'] as const).map((name) =>
    segment(name, 'base', (v) => !usable(v, name) || base(v, name) >> 32n === 0n),
  ),
  ...CODE_AND_DATA.map((name) => segment(name, 'v86.limit', (v) => !virtual8086(v) || limit(v, name) === 0xffff)),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 'v86.attributes', (v) => !virtual8086(v) || attributes(v, name) === 0xf3),
  ),
  segment('Cs', 'type', (v) => {
    if (virtual8086(v)) return true
    const type = attributes(v, 'Cs') & TYPE
    return type === 9 || type === 11 || type === 13 || type === 15 || (type === 3 && unrestricted(v))
  }),
  segment('Ss', 'type', (v) => {
    const type = attributes(v, 'Ss') & TYPE
    return virtual8086(v) || !usable(v, 'Ss') || type === 3 || type === 7
  }),
  ...DATA.map((name) =>
    segment(name, 'type', (v) => {
      if (virtual8086(v) || !usable(v, name)) return true
      const type = attributes(v, name) & TYPE
      // Accessed; readable if it is code.
      return (type & 1) !== 0 && (!(type & 8) || (type & 2) !== 0)
    }),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(
      name,
      's',
      (v) => virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || (attributes(v, name) & RIGHTS.user) !== 0,
    ),
  ),
  segment('Cs', 'dpl', (v) => {
    if (virtual8086(v)) return true
    const type = attributes(v, 'Cs') & TYPE
    const cs = dpl(attributes(v, 'Cs'))
    const ss = dpl(attributes(v, 'Ss'))
    if (type === 3) return cs === 0
    return type === 9 || type === 11 ? cs === ss : cs <= ss
  }),
  segment('Ss', 'dpl', (v) => {
    if (virtual8086(v)) return true
    const ss = dpl(attributes(v, 'Ss'))
    if (!unrestricted(v) && ss !== (selector(v, 'Ss') & 3)) return false
    const real = !(v.read('guestCr0') & CR0_64.pe)
    return (attributes(v, 'Cs') & TYPE) === 3 || real ? ss === 0 : true
  }),
  ...DATA.map((name) =>
    segment(name, 'dpl', (v) => {
      if (virtual8086(v) || unrestricted(v) || !usable(v, name)) return true
      const rights = attributes(v, name)
      return (rights & TYPE) > 11 || dpl(rights) >= (selector(v, name) & 3)
    }),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(
      name,
      'present',
      (v) => virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || (attributes(v, name) & RIGHTS.present) !== 0,
    ),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(
      name,
      'reserved',
      (v) =>
        virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || (attributes(v, name) & (RESERVED | 0xfffe_0000)) === 0,
    ),
  ),
  segment(
    'Cs',
    'd',
    (v) => virtual8086(v) || !(guest64(v) && attributes(v, 'Cs') & RIGHTS.long) || !(attributes(v, 'Cs') & RIGHTS.big),
  ),
  ...CODE_AND_DATA.map((name) =>
    segment(name, 'granularity', (v) => virtual8086(v) || (name !== 'Cs' && !usable(v, name)) || granularity(v, name)),
  ),
  segment('Tr', 'type', (v) => {
    const type = attributes(v, 'Tr') & TYPE
    return type === 11 || (type === 3 && !guest64(v))
  }),
  segment(
    'Tr',
    'attributes',
    (v) =>
      (attributes(v, 'Tr') & (RIGHTS.user | RIGHTS.present | RESERVED | RIGHTS.unusable | 0xfffe_0000)) ===
      RIGHTS.present,
  ),
  segment('Tr', 'granularity', (v) => granularity(v, 'Tr')),
  segment('Ldtr', 'attributes', (v) => {
    return (
      !usable(v, 'Ldtr') ||
      (attributes(v, 'Ldtr') & (TYPE | RIGHTS.user | RIGHTS.present | RESERVED | 0xfffe_0000)) ===
        (LDT | RIGHTS.present)
    )
  }),
  segment('Ldtr', 'granularity', (v) => !usable(v, 'Ldtr') || granularity(v, 'Ldtr')),
  ...(['Gdtr', 'Idtr'] as const).flatMap((name) => [
    guest(GUEST_TABLES, `guest.${name.toLowerCase()}.base`, (v) => isCanonical(v.read(`guest${name}Base`))),
    guest(GUEST_TABLES, `guest.${name.toLowerCase()}.limit`, (v) => v.read(`guest${name}Limit`) >>> 16 === 0),
  ]),
]
