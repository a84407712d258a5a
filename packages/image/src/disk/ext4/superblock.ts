/** Superblock, group descriptors and the journal's superblock as bytes. (Linux, "ext4 Data Structures and Algorithms") */

import { dataView, encodeText } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import { BLOCK, BLOCKS_PER_GROUP, INODE_BYTES } from './geometry.ts'
import type { Geometry, Group } from './geometry.ts'
import { EXTRA_BYTES } from './inode.ts'
import type { Inode } from './inode.ts'

export const RootInode = 2
export const JournalInode = 8
/** lost+found. Those before it are the file system's own. */
export const FirstInode = 11

const Compatible = { hasJournal: 0x4, extendedAttributes: 0x8, indexedDirectories: 0x20 } as const
const Incompatible = { fileType: 0x2, extents: 0x40 } as const
const ReadOnlyCompatible = {
  sparseSuper: 0x1,
  largeFile: 0x2,
  hugeFile: 0x8,
  manyLinks: 0x20,
  extraInodeSize: 0x40,
} as const

const sum = (flags: Readonly<Record<string, number>>): number =>
  Object.values(flags).reduce((all, flag) => all | flag, 0)

/** Kept for root, of a hundred: a full disk can be tidied up. (mke2fs) */
const RESERVED_SHARE = 20
const HALF_MD4 = 1
const UNSIGNED_HASH = 2
const USER_ATTRIBUTES_AND_ACLS = 0xc

export interface Identity {
  /** 16 bytes. */
  readonly uuid: Bytes
  /** For the hash of names in folders: 16 bytes. */
  readonly hashSeed: Bytes
  readonly label: string
  /** Nanoseconds since 1970. */
  readonly made: bigint
}

export interface GroupUse {
  readonly freeBlocks: number
  readonly freeInodes: number
  readonly directories: number
}

/** 1024 bytes. `group`: which copy it is. */
export function superblock(
  geometry: Geometry,
  identity: Identity,
  use: readonly GroupUse[],
  journal: Inode | undefined,
  group: number,
): Bytes {
  const bytes = new Uint8Array(1024)
  const view = dataView(bytes)
  const u16 = (at: number, value: number) => view.setUint16(at, value, true)
  const u32 = (at: number, value: number) => view.setUint32(at, value, true)
  const seconds = Number(identity.made / 1_000_000_000n)
  u32(0x0, geometry.inodes)
  u32(0x4, geometry.blocks)
  u32(0x8, Math.floor(geometry.blocks / RESERVED_SHARE))
  u32(
    0xc,
    use.reduce((all, { freeBlocks }) => all + freeBlocks, 0),
  )
  u32(
    0x10,
    use.reduce((all, { freeInodes }) => all + freeInodes, 0),
  )
  u32(0x18, Math.log2(BLOCK) - 10)
  u32(0x1c, Math.log2(BLOCK) - 10)
  u32(0x20, BLOCKS_PER_GROUP)
  u32(0x24, BLOCKS_PER_GROUP)
  u32(0x28, geometry.inodesPerGroup)
  u32(0x30, seconds) // written
  u16(0x36, 0xffff) // checked after so many mounts: never
  u16(0x38, 0xef53)
  u16(0x3a, 1) // clean
  u16(0x3c, 1) // on errors go on
  u32(0x40, seconds) // checked
  u32(0x4c, 1) // revision
  u32(0x54, FirstInode)
  u16(0x58, INODE_BYTES)
  u16(0x5a, group)
  u32(0x5c, sum(Compatible) & ~(journal ? 0 : Compatible.hasJournal))
  u32(0x60, sum(Incompatible))
  u32(0x64, sum(ReadOnlyCompatible))
  bytes.set(identity.uuid, 0x68)
  bytes.set(encodeText(identity.label).subarray(0, 16), 0x78)
  if (journal) {
    u32(0xe0, JournalInode)
    // A copy of its block map and size: fsck may need the journal before it trusts any inode.
    view.setUint8(0xfd, 1)
    bytes.set(journal.map, 0x10c)
    u32(0x10c + 60, Math.floor(journal.size / 2 ** 32))
    u32(0x10c + 64, journal.size >>> 0)
  }
  bytes.set(identity.hashSeed, 0xec)
  view.setUint8(0xfc, HALF_MD4)
  u32(0x100, USER_ATTRIBUTES_AND_ACLS)
  u32(0x108, seconds) // made
  u16(0x15c, EXTRA_BYTES)
  u16(0x15e, EXTRA_BYTES)
  u32(0x160, UNSIGNED_HASH)
  return bytes
}

export function descriptors(groups: readonly Group[], use: readonly GroupUse[], blocks: number): Bytes {
  const bytes = new Uint8Array(blocks * BLOCK)
  const view = dataView(bytes)
  groups.forEach(({ blockBitmap, inodeBitmap, inodeTable }, index) => {
    const { freeBlocks, freeInodes, directories } = use[index]!
    const at = index * 32
    view.setUint32(at, blockBitmap, true)
    view.setUint32(at + 4, inodeBitmap, true)
    view.setUint32(at + 8, inodeTable, true)
    view.setUint16(at + 12, freeBlocks, true)
    view.setUint16(at + 14, freeInodes, true)
    view.setUint16(at + 16, directories, true)
  })
  return bytes
}

/** An empty journal. (Linux, "ext4 Data Structures and Algorithms", "Journal (jbd2)") */
export function journalSuperblock(blocks: number, uuid: Bytes): Bytes {
  const bytes = new Uint8Array(BLOCK)
  const view = dataView(bytes)
  const words = [0xc03b3998, 4, 0, BLOCK, blocks, 1, 1, 0]
  words.forEach((word, index) => view.setUint32(index * 4, word)) // big-endian, as no other part
  bytes.set(uuid, 0x30)
  view.setUint32(0x40, 1) // file systems that use it
  return bytes
}
