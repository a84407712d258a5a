/** A parallel ATA channel and its bus master as facts. (ATA/ATAPI-7 Vol. 2; "Programming Interface for Bus Master IDE Controller"; 82371AB datasheet) */

/** The legacy places of the primary channel. */
export const COMMAND_BLOCK = { port: 0x1f0, length: 8 } as const
export const CONTROL_PORT = 0x3f6
export const PRIMARY_IRQ = 14

/** Command block, by offset. */
export const Ata = {
  data: 0,
  error: 1,
  features: 1,
  count: 2,
  lbaLow: 3,
  lbaMid: 4,
  lbaHigh: 5,
  device: 6,
  status: 7,
  command: 7,
} as const
/** Device register: the second drive, which is not there. */
export const SECOND = 0x10
/** Bits of the device register that always read as ones. */
export const OBSOLETE = 0xa0
/** Device control register. */
export const Control = { noInterrupt: 0x02, softReset: 0x04, highOrder: 0x80 } as const

/** Bus master registers of a channel. */
export const BusMaster = { command: 0, status: 2, table: 4, length: 8 } as const
export const BusMasterCommand = { start: 0x01, toMemory: 0x08 } as const
/** The two capable bits are the driver's to write; interrupt and error are cleared by a one. */
export const BusMasterStatus = { active: 0x01, error: 0x02, interrupt: 0x04, capable: 0x60 } as const

/** Physical region descriptors: address, bytes (0: 64 KiB), and a flag in the last. */
export const Region = { size: 8, bytes: 4, flags: 6, last: 0x8000, most: 65_536 } as const
/** "The table must not cross a 64 KiB boundary": no more entries than that. */
export const MOST_REGIONS = 8192

/** IDETIM: decode enable of the primary channel. */
export const IdeTiming = { primaryHigh: 0x41, decode: 0x80 } as const
