/** Requests and responses of block devices, as 64-bit guests lay them out. (Xen, "public/io/blkif.h") */

export const OPERATION = { read: 0, write: 1, flush: 3, discard: 5, indirect: 6 } as const
export const RESULT = { ok: 0, error: -1, unsupported: -2 } as const

/** Of an entry of the ring, and where things are in it. */
export const REQUEST_SIZE = 112
export const REQUEST = { operation: 0, segments: 1, id: 8, sector: 16, list: 24, discardSectors: 24 } as const
/** A request whose segments are listed in pages. */
export const INDIRECT = { operation: 1, segments: 2, pages: 28 } as const
export const RESPONSE_SIZE = 16
export const RESPONSE = { id: 0, operation: 8, status: 10 } as const

/** A segment: reference of a grant, first and last sector in its page. */
export const SEGMENT_SIZE = 8
export const MOST_SEGMENTS = 11
export const MOST_INDIRECT = 256
export const SEGMENTS_A_PAGE = 4096 / SEGMENT_SIZE
export const SECTOR = 512
export const LAST_SECTOR = 7

/** What `info` of the back end says. */
export const READ_ONLY = 4

const FIRST = 51_712
const EXTENDED = 2 ** 28
const MOST_SHORT = 16
/** `xvda` to `xvdz` by index. (Xen, "docs/man/xen-vbd-interface") */
export const diskHandle = (index: number): number => (index < MOST_SHORT ? FIRST + 16 * index : EXTENDED + 256 * index)
