/** Facts of the block device: features, configuration, requests. ("Block Device") */

export const BlockFeature = {
  segMax: 2,
  readOnly: 5,
  blockSize: 6,
  flush: 9,
  topology: 10,
  configWriteback: 11,
  multiQueue: 12,
  discard: 13,
  writeZeroes: 14,
} as const

/** struct virtio_blk_config up to write_zeroes_may_unmap. */
export const BlockConfig = {
  capacity: 0,
  segMax: 12,
  blockSize: 20,
  physicalBlockExponent: 24,
  minimumIo: 26,
  writeback: 32,
  queues: 34,
  mostDiscardSectors: 36,
  mostDiscardSegments: 40,
  discardAlignment: 44,
  mostZeroSectors: 48,
  mostZeroSegments: 52,
  zeroesMayUnmap: 56,
  size: 60,
} as const

export const BlockType = { read: 0, write: 1, flush: 4, getId: 8, discard: 11, writeZeroes: 13 } as const
export const BlockStatus = { ok: 0, ioError: 1, unsupported: 2 } as const

export const SECTOR = 512
export const HEADER_SIZE = 16
export const ID_SIZE = 20
export const SEGMENT_SIZE = 16
export const UNMAP = 1
/** A discard or write-zeroes request: at most 32 ranges of at most 1 GiB. */
export const MOST_SEGMENTS = 32
export const MOST_SEGMENT_SECTORS = 2 ** 21
