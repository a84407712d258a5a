/** Where things are in an ext4 file system of a given size: groups, and in each its bitmaps and inodes. Independent of files. (Linux, "ext4 Data Structures and Algorithms") */

import { formatSize, NonrootError } from '@nonroot/contracts'

export const BLOCK = 4096
export const INODE_BYTES = 256
export const BLOCKS_PER_GROUP = 8 * BLOCK // as many as the bits of one block
const INODES_PER_BLOCK = BLOCK / INODE_BYTES
const DESCRIPTOR_BYTES = 32
/** The kernel's least, journal left out: root, lost+found, and room for a file. */
const LEAST_BLOCKS = 64
/** Numbers of blocks have 32 bits: more needs the feature "64bit". */
const MOST_BLOCKS = 2 ** 32
/** A group shorter than its own bookkeeping and this much is left out. (mke2fs) */
const LEAST_GROUP_DATA = 50
const MIB = 2 ** 20

export interface Group {
  readonly start: number
  /** Blocks. */
  readonly length: number
  /** It begins with a copy of superblock and descriptors. */
  readonly hasSuperblock: boolean
  readonly blockBitmap: number
  readonly inodeBitmap: number
  readonly inodeTable: number
  /** The first block that is free. */
  readonly data: number
}

export interface Geometry {
  readonly blocks: number
  readonly inodesPerGroup: number
  readonly inodes: number
  readonly descriptorBlocks: number
  readonly inodeTableBlocks: number
  readonly journalBlocks: number
  readonly groups: readonly Group[]
}

/** "sparse_super": copies in groups 0, 1 and powers of 3, 5 and 7. */
function hasSuperblock(group: number): boolean {
  if (group <= 1) return true
  return [3, 5, 7].some((base) => {
    let power = base
    while (power < group) power *= base
    return power === group
  })
}

/** As mke2fs: bytes of disk for each inode. */
const bytesPerInode = (size: number): number => (size < 512 * MIB ? 4096 : 16384)

/** As mke2fs: blocks of the journal by size of the disk. None where it would take most of it. */
const JOURNALS: readonly { readonly below: number; readonly blocks: number }[] = [
  { below: 8 * MIB, blocks: 0 },
  { below: 128 * MIB, blocks: 1024 },
  { below: 1024 * MIB, blocks: 4096 },
  { below: 2048 * MIB, blocks: 8192 },
  { below: 16384 * MIB, blocks: 16384 },
  { below: Infinity, blocks: 32768 },
]

/** `size` in bytes. */
export function geometryOf(size: number, name: string): Geometry {
  let blocks = Math.floor(size / BLOCK)
  const refuse = (message: string, remedy: string): never => {
    throw new NonrootError({ code: 'usage', message: `${name}: ${message}`, thing: name, value: size, remedy })
  }
  if (!(blocks >= LEAST_BLOCKS))
    return refuse(
      `${size} bytes are too small for a file system`,
      `it takes ${formatSize(LEAST_BLOCKS * BLOCK)} at least`,
    )
  if (blocks >= MOST_BLOCKS)
    return refuse(`${formatSize(size)} are too much for 32-bit block numbers`, 'less than 16 TiB')
  let count = Math.ceil(blocks / BLOCKS_PER_GROUP)
  const inodesWanted = Math.ceil(size / bytesPerInode(size) / count)
  const inodesPerGroup = Math.min(
    Math.max(16, Math.ceil(inodesWanted / INODES_PER_BLOCK) * INODES_PER_BLOCK),
    8 * BLOCK,
  )
  const inodeTableBlocks = inodesPerGroup / INODES_PER_BLOCK
  const descriptorBlocks = Math.ceil((count * DESCRIPTOR_BYTES) / BLOCK)
  const overhead = (group: number): number => (hasSuperblock(group) ? 1 + descriptorBlocks : 0) + 2 + inodeTableBlocks
  const last = blocks - (count - 1) * BLOCKS_PER_GROUP
  if (count > 1 && last < overhead(count - 1) + LEAST_GROUP_DATA) {
    count--
    blocks -= last
  }
  const groups = Array.from({ length: count }, (_, index): Group => {
    const start = index * BLOCKS_PER_GROUP
    const blockBitmap = start + (hasSuperblock(index) ? 1 + descriptorBlocks : 0)
    return {
      start,
      length: Math.min(BLOCKS_PER_GROUP, blocks - start),
      hasSuperblock: hasSuperblock(index),
      blockBitmap,
      inodeBitmap: blockBitmap + 1,
      inodeTable: blockBitmap + 2,
      data: start + overhead(index),
    }
  })
  const journalBlocks = JOURNALS.find(({ below }) => size < below)!.blocks
  return {
    blocks,
    inodesPerGroup,
    inodes: inodesPerGroup * count,
    descriptorBlocks,
    inodeTableBlocks,
    journalBlocks,
    groups,
  }
}
