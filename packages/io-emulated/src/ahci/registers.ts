/** AHCI as facts: host bus adapter and port registers, FISes, command headers. (Serial ATA AHCI 1.3.1; Serial ATA, "Frame Information Structure") */

/** Generic host control. */
export const Hba = { capabilities: 0x00, control: 0x04, interrupts: 0x08, ports: 0x0c, version: 0x10 } as const
/** S64A, SNCQ, SCLO, SAM, generation 3, 32 command slots; one port. */
export const CAPABILITIES = 0xc134_1f00
export const VERSION = 0x0001_0300
export const SLOTS = 32
export const Control = { reset: 1, interruptEnable: 2, ahciEnable: 0x8000_0000 } as const

/** The port's registers, from its base. */
export const PORT_BASE = 0x100
export const PORT_LENGTH = 0x80
export const Port = {
  commandList: 0x00,
  commandListUpper: 0x04,
  fis: 0x08,
  fisUpper: 0x0c,
  interruptStatus: 0x10,
  interruptEnable: 0x14,
  command: 0x18,
  taskFile: 0x20,
  signature: 0x24,
  sataStatus: 0x28,
  sataControl: 0x2c,
  sataError: 0x30,
  sataActive: 0x34,
  commandIssue: 0x38,
} as const

/** PxCMD */
export const Command = {
  start: 0x01,
  spinUp: 0x02,
  powerOn: 0x04,
  commandListOverride: 0x08,
  fisReceive: 0x10,
  currentSlot: 8,
  fisRunning: 0x4000,
  running: 0x8000,
  /** What the guest may write, the start and override bits aside: FRE, PMA is not there, ALPE and ASP without effect. */
  writable: 0x11,
} as const

/** PxIS and PxIE */
export const PortInterrupt = {
  deviceToHost: 1 << 0,
  pioSetup: 1 << 1,
  setDeviceBits: 1 << 3,
  /** PxSERR.DIAG.X, and PxSERR.DIAG.N: these two only show PxSERR. */
  connectChange: 1 << 6,
  phyChange: 1 << 22,
  overflow: 1 << 24,
  hostBusFatal: 1 << 29,
  taskFileError: 1 << 30,
  enableMask: 0x7dc0_007f,
} as const

/** PxSERR */
export const SataError = { phyChange: 1 << 16, exchanged: 1 << 26 } as const
/** PxSSTS: device present and communicating, generation 3, interface active. */
export const LINK_UP = 0x133
/** PxSCTL.DET */
export const DETECTION = 0x0f
export const Detection = { none: 0, initialise: 1, offline: 4 } as const
/** PxSIG of a disk: count 1, LBA 1. */
export const DISK_SIGNATURE = 0x0000_0101
export const NO_SIGNATURE = 0xffff_ffff
/** PxTFD without a device. */
export const NO_DEVICE = 0x7f

/** Where received FISes are, from PxFB. */
export const Received = { pioSetup: 0x20, deviceToHost: 0x40, setDeviceBits: 0x58, size: 0x100 } as const
export const FisType = { hostToDevice: 0x27, deviceToHost: 0x34, setDeviceBits: 0xa1, pioSetup: 0x5f } as const
/** A register FIS from the host, by byte. */
export const HostFis = {
  type: 0,
  flags: 1,
  command: 2,
  features: 3,
  lba: 4,
  device: 7,
  lbaHigh: 8,
  featuresHigh: 11,
  count: 12,
  countHigh: 13,
  control: 15,
  size: 20,
} as const
/** In HostFis.flags: the command register was written, not the control register. */
export const IS_COMMAND = 0x80
export const SOFT_RESET = 0x04
export const FIS_INTERRUPT = 0x40
export const FIS_TO_HOST = 0x20

export const HEADER_SIZE = 32
/** A command header: DW0 and where. */
export const Header = { flags: 0, transferred: 4, table: 8 } as const
export const HeaderFlag = { length: 0x1f, entries: 16 } as const
/** In a command table. */
export const Table = { regions: 0x80, region: 16 } as const
/** A region's last doubleword: bytes less one. */
export const REGION_BYTES = 0x3f_ffff
