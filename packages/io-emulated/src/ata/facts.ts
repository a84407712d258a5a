/** ATA as facts: registers, commands, features. Independent of controllers. (ATA/ATAPI Command Set - 2, "ACS-2"; cylinders and heads: ATA/ATAPI-5) */

/** Status register. */
export const AtaStatus = {
  error: 0x01,
  request: 0x08,
  seekComplete: 0x10,
  fault: 0x20,
  ready: 0x40,
  busy: 0x80,
} as const
/** What a healthy drive shows between commands. */
export const READY = AtaStatus.ready | AtaStatus.seekComplete
/** Error register. */
export const AtaError = { aborted: 0x04, idNotFound: 0x10, uncorrectable: 0x40 } as const

export const AtaFeature = {
  trim: 0x01,
  writeCacheOn: 0x02,
  transferMode: 0x03,
  lookAheadOff: 0x55,
  writeCacheOff: 0x82,
  lookAheadOn: 0xaa,
} as const

/** Addresses of general purpose logs. */
export const AtaLog = { directory: 0x00, queuedError: 0x10 } as const

/** Bytes of a block of IDENTIFY data, logs and trim ranges, whatever the sector size. */
export const BLOCK = 512
/** LBA bit of the device register. */
export const LBA_MODE = 0x40
/** FUA bit of the device register, in queued writes. */
export const QUEUED_FUA = 0x80

/** How a command's data goes: `pioIn` and `pioOut` by the data register (or PIO Setup FISes), `dmaIn` and `dmaOut` by DMA. */
export type Protocol = 'none' | 'pioIn' | 'pioOut' | 'dmaIn' | 'dmaOut'
export type Action =
  | 'identify'
  | 'read'
  | 'write'
  | 'verify'
  | 'flush'
  | 'trim'
  | 'setFeatures'
  | 'setGeometry'
  | 'readLog'
  | 'diagnose'
  | 'checkPower'
  | 'nothing'

export interface CommandRow {
  readonly name: string
  readonly action: Action
  readonly protocol: Protocol
  /** 48-bit address and 16-bit count, of which 0 stands for the most. */
  readonly extended?: boolean
  /** First-party DMA: the count is in the feature register, the tag in the count. */
  readonly queued?: boolean
  /** Durable before it completes. */
  readonly forceUnitAccess?: boolean
}

const row = (name: string, action: Action, protocol: Protocol, more: Partial<CommandRow> = {}): CommandRow => ({
  name,
  action,
  protocol,
  ...more,
})
const extended = { extended: true } as const
const queued = { extended: true, queued: true } as const

/** By command code. What is not here is aborted. */
export const COMMANDS: ReadonlyMap<number, CommandRow> = new Map([
  [0x06, row('DATA SET MANAGEMENT', 'trim', 'dmaOut', extended)],
  [0x10, row('RECALIBRATE', 'nothing', 'none')],
  [0x20, row('READ SECTOR(S)', 'read', 'pioIn')],
  [0x21, row('READ SECTOR(S) without retries', 'read', 'pioIn')],
  [0x24, row('READ SECTOR(S) EXT', 'read', 'pioIn', extended)],
  [0x25, row('READ DMA EXT', 'read', 'dmaIn', extended)],
  [0x2f, row('READ LOG EXT', 'readLog', 'pioIn', extended)],
  [0x30, row('WRITE SECTOR(S)', 'write', 'pioOut')],
  [0x31, row('WRITE SECTOR(S) without retries', 'write', 'pioOut')],
  [0x34, row('WRITE SECTOR(S) EXT', 'write', 'pioOut', extended)],
  [0x35, row('WRITE DMA EXT', 'write', 'dmaOut', extended)],
  [0x3d, row('WRITE DMA FUA EXT', 'write', 'dmaOut', { extended: true, forceUnitAccess: true })],
  [0x40, row('READ VERIFY SECTOR(S)', 'verify', 'none')],
  [0x42, row('READ VERIFY SECTOR(S) EXT', 'verify', 'none', extended)],
  [0x47, row('READ LOG DMA EXT', 'readLog', 'dmaIn', extended)],
  [0x60, row('READ FPDMA QUEUED', 'read', 'dmaIn', queued)],
  [0x61, row('WRITE FPDMA QUEUED', 'write', 'dmaOut', queued)],
  [0x90, row('EXECUTE DEVICE DIAGNOSTIC', 'diagnose', 'none')],
  [0x91, row('INITIALIZE DEVICE PARAMETERS', 'setGeometry', 'none')],
  [0xc8, row('READ DMA', 'read', 'dmaIn')],
  [0xca, row('WRITE DMA', 'write', 'dmaOut')],
  [0xe0, row('STANDBY IMMEDIATE', 'nothing', 'none')],
  [0xe1, row('IDLE IMMEDIATE', 'nothing', 'none')],
  [0xe2, row('STANDBY', 'nothing', 'none')],
  [0xe3, row('IDLE', 'nothing', 'none')],
  [0xe5, row('CHECK POWER MODE', 'checkPower', 'none')],
  [0xe6, row('SLEEP', 'nothing', 'none')],
  [0xe7, row('FLUSH CACHE', 'flush', 'none')],
  [0xea, row('FLUSH CACHE EXT', 'flush', 'none', extended)],
  [0xec, row('IDENTIFY DEVICE', 'identify', 'pioIn')],
  [0xef, row('SET FEATURES', 'setFeatures', 'none')],
])
