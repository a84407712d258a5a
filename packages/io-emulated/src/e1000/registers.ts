/** Registers of the 8254x family, as far as drivers of the 82540EM use them. ("PCI/PCI-X Family of Gigabit Ethernet Controllers Software Developer's Manual") */

export const Reg = {
  control: 0x0000,
  status: 0x0008,
  eecd: 0x0010,
  eerd: 0x0014,
  mdic: 0x0020,
  icr: 0x00c0,
  ics: 0x00c8,
  ims: 0x00d0,
  imc: 0x00d8,
  receiveControl: 0x0100,
  transmitControl: 0x0400,
  packetBuffer: 0x1000,
  rdbal: 0x2800,
  rdbah: 0x2804,
  rdlen: 0x2808,
  rdh: 0x2810,
  rdt: 0x2818,
  tdbal: 0x3800,
  tdbah: 0x3804,
  tdlen: 0x3808,
  tdh: 0x3810,
  tdt: 0x3818,
  /** Statistics: read and cleared. */
  statistics: 0x4000,
  statisticsEnd: 0x4128,
  multicastTable: 0x5200,
  receiveAddress: 0x5400,
  vlanTable: 0x5600,
  end: 0x6000,
} as const

export const Control = { setLinkUp: 1 << 6, reset: 1 << 26, phyReset: 0x8000_0000 } as const
/** Full duplex, link up, 1000 Mb/s. */
export const Status = { fullDuplex: 1, linkUp: 2, speed1000: 0x80 } as const
export const Eecd = { clock: 1, select: 2, in: 4, out: 8, kept: 0x77, granted: 0x80, present: 0x100 } as const
export const Eerd = { start: 1, done: 0x10 } as const
export const Mdic = { write: 1 << 26, read: 2 << 26, ready: 1 << 28, error: 1 << 30 } as const
export const Cause = { transmitted: 1, linkChanged: 4, overrun: 0x40, received: 0x80 } as const
export const ReceiveControl = {
  enable: 2,
  unicastPromiscuous: 8,
  multicastPromiscuous: 0x10,
  longPackets: 0x20,
  broadcast: 0x8000,
  sizeExtension: 1 << 25,
  stripCrc: 1 << 26,
  vlanFilter: 1 << 18,
} as const
export const TransmitControl = { enable: 2 } as const
export const ADDRESS_VALID = 0x8000_0000

export const DESCRIPTOR = 16
/** Transmit descriptors: where fields are, and what commands mean. */
export const Tx = {
  length: 8,
  command: 11,
  status: 12,
  options: 13,
  checksumStart: 13,
  checksumOffset: 10,
  mss: 14,
  headerLength: 13,
} as const
export const TxCommand = { end: 1, insertChecksum: 4, segment: 4, report: 8, extended: 0x20 } as const
export const TxOption = { ip: 1, transport: 2 } as const
export const ContextCommand = { tcp: 1, ip4: 2 } as const
export const Rx = { length: 8, status: 12 } as const
export const RxStatus = { done: 1, end: 2, ignoreChecksum: 4 } as const
/** Frame check sequence: none is made, but drivers expect its place. */
export const CRC = 4

/** PHY: a Marvell 88E1011, with a link partner that does everything. Register by number. */
export const PHY: Readonly<Record<number, number>> = {
  0: 0x1140,
  1: 0x796d,
  2: 0x0141,
  3: 0x0c20,
  4: 0x0de1,
  5: 0xc1e0,
  6: 0x000f,
  9: 0x0e00,
  10: 0x3c00,
  15: 0x3000,
  16: 0x0360,
  17: 0xac08,
  20: 0x0d60,
}
export const PHY_STATUS = 1
export const PHY_LINK_BITS = 0x24
export const PHY_SPECIFIC_STATUS = 17
export const PHY_SPECIFIC_LINK = 0x0400
