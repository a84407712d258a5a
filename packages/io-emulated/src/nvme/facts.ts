/** NVMe as facts: registers, opcodes, statuses, fields. (NVM Express Base Specification 1.4) */

export const Register = {
  capabilities: 0x00,
  capabilitiesHigh: 0x04,
  version: 0x08,
  interruptMaskSet: 0x0c,
  interruptMaskClear: 0x10,
  configuration: 0x14,
  status: 0x1c,
  adminQueueAttributes: 0x24,
  adminSubmission: 0x28,
  adminCompletion: 0x30,
} as const

export const DOORBELLS = 0x1000
export const BAR_SIZE = 0x2000

export const VERSION = 0x0001_0400
export const MOST_ENTRIES = 1024
export const SUBMISSION_SIZE = 64
export const COMPLETION_SIZE = 16
export const PAGE = 4096
/** Pages in one transfer, as a power of two. (Identify Controller, "MDTS") */
export const MOST_PAGES_LOG2 = 9

/** Contiguous queues, 30 s until ready, the NVM command set; doorbells 4 bytes apart, pages of 4 KiB only. */
export const CAPABILITIES = { low: (MOST_ENTRIES - 1) | (1 << 16) | (60 << 24), high: 1 << 5 } as const

export const Configuration = {
  enable: 1,
  commandSet: 7 << 4,
  pageSize: 0xf << 7,
  shutdown: 3 << 14,
  entrySizes: 0xff << 16,
  /** 64 and 16 bytes. */
  entrySizesWanted: (6 << 16) | (4 << 20),
} as const
export const ControllerStatus = { ready: 1, fatal: 2, shutdownBusy: 1 << 2, shutdownDone: 2 << 2 } as const

export const Admin = {
  deleteSubmission: 0x00,
  createSubmission: 0x01,
  getLog: 0x02,
  deleteCompletion: 0x04,
  createCompletion: 0x05,
  identify: 0x06,
  abort: 0x08,
  setFeatures: 0x09,
  getFeatures: 0x0a,
  asyncEvent: 0x0c,
} as const

export const Io = { flush: 0x00, write: 0x01, read: 0x02, writeZeroes: 0x08, datasetManagement: 0x09 } as const

/** Status code type (bits 10:8) and code. (Base Specification, "Status Code") */
export const Status = {
  success: 0x000,
  invalidOpcode: 0x001,
  invalidField: 0x002,
  dataTransfer: 0x004,
  internal: 0x006,
  abortRequested: 0x007,
  invalidNamespace: 0x00b,
  invalidPrpOffset: 0x013,
  writeProtected: 0x020,
  lbaRange: 0x080,
  completionQueueInvalid: 0x100,
  invalidQueue: 0x101,
  invalidQueueSize: 0x102,
  tooManyEvents: 0x105,
  invalidVector: 0x108,
  invalidLogPage: 0x109,
  queueDeletion: 0x10c,
  notSaveable: 0x10d,
  writeFault: 0x280,
  readError: 0x281,
} as const
/** "Do Not Retry", in the status field. */
export const DO_NOT_RETRY = 1 << 14

export const Feature = {
  arbitration: 0x01,
  powerManagement: 0x02,
  temperature: 0x04,
  errorRecovery: 0x05,
  writeCache: 0x06,
  queues: 0x07,
  coalescing: 0x08,
  vector: 0x09,
  atomicity: 0x0a,
  events: 0x0b,
} as const

/** The features that are one word, and their values at power-up. What they ask for beyond the write cache is advice. */
export const FEATURE_DEFAULTS: ReadonlyMap<number, number> = new Map([
  [Feature.arbitration, 0],
  [Feature.powerManagement, 0],
  // 343 K, in the composite temperature's over threshold.
  [Feature.temperature, 343],
  [Feature.errorRecovery, 0],
  [Feature.writeCache, 1],
  [Feature.coalescing, 0],
  [Feature.atomicity, 0],
  [Feature.events, 0],
])

export const Log = { errors: 0x01, health: 0x02, firmware: 0x03, changedNamespaces: 0x04 } as const

/** Asynchronous events: type in bits 2:0, information in 15:8, log page in 23:16. */
export const Event = {
  unknownDoorbell: (Log.errors << 16) | (0x00 << 8),
  badDoorbellValue: (Log.errors << 16) | (0x01 << 8),
  namespaceChanged: (Log.changedNamespaces << 16) | 2,
} as const
/** Set by "Asynchronous Event Configuration": notices of changed namespaces. */
export const NAMESPACE_NOTICES = 1 << 8
/** As many outstanding Asynchronous Event Requests. */
export const MOST_EVENTS = 4

/** Fields of Read, Write, Write Zeroes and Dataset Management. */
export const FORCE_UNIT_ACCESS = 2 ** 30
export const DEALLOCATE = 1 << 2
export const RANGE_SIZE = 16
export const MOST_RANGES = 256
