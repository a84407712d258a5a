/** What an entry may hold, by level, and the names under which refusals are counted. Facts only. (Xen, "xen/arch/x86/mm.c"; SDM Vol. 3A, "4-Level Paging") */

import { PAGE_ENTRY } from '@nonroot/contracts'

/** Bits 63:32. Bit 62: a grant's mapping, which only the grant calls change. Bit 52: the guest did not mean its user programs to reach the page; both its modes run at CPL 3. */
export const HIGH = {
  kernelOnly: 1 << 20,
  grant: 1 << 30,
  noExecute: PAGE_ENTRY.noExecuteHigh,
  address: 0xf_ffff,
} as const

/** Bits that no entry may have: cache control, a large page, and bit 62, by which entries of grants are known. */
const NEVER_LOW = PAGE_ENTRY.writeThrough | PAGE_ENTRY.cacheDisable | PAGE_ENTRY.large
const NEVER_HIGH = HIGH.grant

/** By level, 0 unused. Global: in the last level alone. */
export const FORBIDDEN_LOW: readonly number[] = [
  0,
  NEVER_LOW,
  NEVER_LOW | PAGE_ENTRY.global,
  NEVER_LOW | PAGE_ENTRY.global,
  NEVER_LOW | PAGE_ENTRY.global,
]
export const FORBIDDEN_HIGH = NEVER_HIGH

const FREE = PAGE_ENTRY.user | PAGE_ENTRY.accessed | PAGE_ENTRY.dirty | PAGE_ENTRY.available
/** Changes that leave counts as they are: all but frame, writable, present and what is forbidden anyway. By level as above. */
export const FREE_LOW: readonly number[] = [0, FREE | PAGE_ENTRY.global, FREE, FREE, FREE]
export const FREE_HIGH = HIGH.noExecute | 0x3ff0_0000

/** Slots of the root table that are the hypervisor's: linear addresses 0xffff8000_00000000 to 0xffff87ff_ffffffff. */
export const OWN_SLOTS = { first: 256, last: 271, machineToPhysical: 256, perDomain: 260 } as const
export const isOwnSlot = (index: number): boolean => index >= OWN_SLOTS.first && index <= OWN_SLOTS.last

export const ENTRIES = 512

/** Why something was refused. */
export const RULES = {
  flags: 'an entry has a bit that it may not have',
  frame: 'an entry names a frame that does not exist',
  owner: 'an entry names a frame of another owner',
  use: 'a frame has another use: a table or descriptors would become writable, or a table change its level',
  slot: "an entry lies in the hypervisor's part of the address space",
  descriptor: 'a segment descriptor that would give privilege',
  range: 'a request names a frame or address that it may not',
  grant: 'an entry is of a grant, or not the one that a grant made',
  pin: 'a frame is pinned twice, or unpinned without being pinned',
  walk: 'no table of the last level maps the address',
} as const
export type Rule = keyof typeof RULES
