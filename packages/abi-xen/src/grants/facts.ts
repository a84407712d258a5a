/** Constants of grant tables. (Xen, "public/grant_table.h") */

export const STATUS = {
  ok: 0,
  general: -1,
  badDomain: -2,
  badReference: -3,
  badHandle: -4,
  badAddress: -5,
  badDeviceAddress: -6,
  noSpace: -7,
  denied: -8,
  badPage: -9,
  badCopy: -10,
  again: -12,
} as const
export type GrantStatus = (typeof STATUS)[keyof typeof STATUS]

export type GrantVersion = 1 | 2
/** Bytes of an entry, and where it has its frame's number: 32 bits of it, or 64. Flags and domain come first, 16 bits each. */
export const LAYOUT = {
  1: { bytes: 8, frame: 4 },
  2: { bytes: 16, frame: 8, start: 4, length: 6 },
} as const
/** Of version 2: what marks an entry as in use is apart from it. */
export const STATUS_BYTES = 2

/** Flags of an entry. The first two bits are its type. */
export const ENTRY = {
  type: 3,
  permitAccess: 1,
  acceptTransfer: 2,
  readOnly: 1 << 2,
  reading: 1 << 3,
  writing: 1 << 4,
  /** Version 2: a part of the page, and for copies alone. */
  subPage: 1 << 8,
  /** Of entries that accept a transfer. */
  committed: 1 << 2,
  completed: 1 << 3,
} as const

/** Of a mapping. Bits 18:16 go into the entry as the guest's own. */
export const MAP = { device: 1, host: 2, readOnly: 4, application: 8, containsEntry: 16, availableShift: 16 } as const
