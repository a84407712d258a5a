/** VT-d as facts: registers, fields, descriptors, faults. (Intel Virtualization Technology for Directed I/O, "Register Descriptions"; "Translation Faults") */

export const Register = {
  version: 0x00,
  capability: 0x08,
  extendedCapability: 0x10,
  command: 0x18,
  status: 0x1c,
  rootTable: 0x20,
  contextCommand: 0x28,
  faultStatus: 0x34,
  faultControl: 0x38,
  faultData: 0x3c,
  faultAddress: 0x40,
  faultUpperAddress: 0x44,
  queueHead: 0x80,
  queueTail: 0x88,
  queueAddress: 0x90,
  completionStatus: 0x9c,
  completionControl: 0xa0,
  completionData: 0xa4,
  completionAddress: 0xa8,
  completionUpperAddress: 0xac,
  remappingTable: 0xb8,
  invalidateAddress: 0x100,
  invalidateCommand: 0x108,
  faults: 0x200,
} as const

export const REGISTERS_SIZE = 0x1000
export const VERSION = 0x10
/** Fault recording registers. */
export const FAULT_RECORDS = 8
export const FAULT_RECORD_SIZE = 16
/** Log2 of the largest aligned range of pages that one invalidation names. */
const MOST_MASK = 18
/** 3- and 4-level tables. */
export const LEVELS = [3, 4] as const
export const MOST_ADDRESS_BITS = 48

/** Low and high halves. (CAP_REG, ECAP_REG) */
export const CAPABILITY = {
  // 2^16 domains; SAGAW; MGAW; zero-length reads; FRO.
  low: (6 | (0b110 << 8) | ((MOST_ADDRESS_BITS - 1) << 16) | (1 << 22) | ((Register.faults / 16) << 24)) >>> 0,
  // Large pages of 2 MiB and 1 GiB; page-selective invalidation; NFR; MAMV; write and read draining; posted interrupts.
  high:
    (((Register.faults / 16) >> 8) |
      (3 << 2) |
      (1 << 7) |
      ((FAULT_RECORDS - 1) << 8) |
      (MOST_MASK << 16) |
      (3 << 22) |
      (1 << 27)) >>>
    0,
} as const
export const EXTENDED_CAPABILITY = {
  // Coherent walks; queued invalidation; interrupt remapping with extended mode; pass-through; IRO; MHMV.
  low: 1 | (1 << 1) | (1 << 3) | (1 << 4) | (1 << 6) | ((Register.invalidateAddress / 16) << 8) | (0xf << 20),
  high: 0,
} as const

/** Bits of the global command and status registers. */
export const Global = {
  translation: 2 ** 31,
  rootTable: 2 ** 30,
  queue: 2 ** 26,
  interruptRemapping: 2 ** 25,
  remappingTable: 2 ** 24,
  compatibilityFormat: 2 ** 23,
} as const

export const FaultStatus = { overflow: 1, pending: 2, queueError: 1 << 4, clearable: 0x71 } as const
export const EventControl = { mask: 2 ** 31, pending: 2 ** 30 } as const

/** "Fault Reason Encodings". */
export const Fault = {
  rootNotPresent: 0x1,
  contextNotPresent: 0x2,
  contextInvalid: 0x3,
  addressTooWide: 0x4,
  writeDenied: 0x5,
  readDenied: 0x6,
  tableAccess: 0x7,
  rootAccess: 0x8,
  contextAccess: 0x9,
  rootReserved: 0xa,
  contextReserved: 0xb,
  tableReserved: 0xc,
  reservedRequest: 0x20,
  indexTooLarge: 0x21,
  remappingNotPresent: 0x22,
  remappingAccess: 0x23,
  remappingReserved: 0x24,
  compatibilityBlocked: 0x25,
  sourceInvalid: 0x26,
  postedAccess: 0x27,
} as const

export const Present = 1
/** Bits that must be zero in entries that are present. ("Root Entry", "Context Entry") */
export const Reserved = {
  root: 0xfff0_0000_0000_0ffen,
  contextLow: 0xfff0_0000_0000_0ff0n,
  contextHigh: 0xffff_ffff_ff00_0080n,
} as const
export const ContextType = { tables: 0, tablesWithDeviceCache: 1, passThrough: 2 } as const
/** Second-level entries. */
export const Second = { read: 1, write: 2, large: 1 << 7 } as const

/** Types of invalidation descriptors. */
export const Descriptor = { context: 1, iotlb: 2, deviceTlb: 3, interruptCache: 4, wait: 5 } as const
export const DESCRIPTOR_SIZE = 16
export const Granularity = { global: 1, domain: 2, selective: 3 } as const
export const Wait = { interrupt: 1 << 4, status: 1 << 5 } as const

/** DMA writes here are messages, not memory. */
export const MESSAGES = { start: 0xfee0_0000, end: 0xfef0_0000 } as const
export const REMAPPABLE = 1 << 4
export const SUBHANDLE_VALID = 1 << 3
