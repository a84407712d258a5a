/** Encodes inodes: modes, times, owners, and the 60 bytes of block map. Independent of groups and folders. (Linux, "ext4 Data Structures and Algorithms", "Index Nodes") */

import { dataView } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import type { EntryKind } from '../entry.ts'
import { BLOCK, INODE_BYTES } from './geometry.ts'

export const MAP_BYTES = 60
/** Of the fields beyond the 128 bytes of ext2 that are in use; extended attributes follow. */
export const EXTRA_BYTES = 32
export const ATTRIBUTES_AT = 128 + EXTRA_BYTES
export const ATTRIBUTE_BYTES = INODE_BYTES - ATTRIBUTES_AT

export type InodeKind = Exclude<EntryKind, 'hardLink'>

/** The file type in the mode, and the one in folders. */
export const KINDS: Readonly<Record<InodeKind, { readonly format: number; readonly fileType: number }>> = {
  file: { format: 0o100000, fileType: 1 },
  directory: { format: 0o040000, fileType: 2 },
  characterDevice: { format: 0o020000, fileType: 3 },
  blockDevice: { format: 0o060000, fileType: 4 },
  fifo: { format: 0o010000, fileType: 5 },
  socket: { format: 0o140000, fileType: 6 },
  symbolicLink: { format: 0o120000, fileType: 7 },
}

/** EXT4_EXTENTS_FL: the block map is an extent tree. */
export const USES_EXTENTS = 0x80000

export interface Inode {
  readonly number: number
  readonly kind: InodeKind
  mode: number
  uid: number
  gid: number
  modified: bigint
  links: number
  size: number
  /** Blocks of the disk, those of the extent tree and of attributes included. */
  blocks: number
  flags: number
  /** Extents, a short link's target or a device's numbers. */
  map: Bytes
  /** Attributes that fit into the inode, and the block of those that do not. */
  attributes: Bytes
  attributeBlock: number
}

export const createInode = (number: number, kind: InodeKind): Inode => ({
  number,
  kind,
  mode: 0,
  uid: 0,
  gid: 0,
  modified: 0n,
  links: 0,
  size: 0,
  blocks: 0,
  flags: 0,
  map: new Uint8Array(MAP_BYTES),
  attributes: new Uint8Array(0),
  attributeBlock: 0,
})

const NANOSECONDS = 1_000_000_000n

/** 32 bits of seconds, as ext2 has them, and the extra ones: two bits of epoch, thirty of nanoseconds. */
export function splitTime(time: bigint): { seconds: number; extra: number } {
  const nanoseconds = ((time % NANOSECONDS) + NANOSECONDS) % NANOSECONDS
  const seconds = (time - nanoseconds) / NANOSECONDS
  const low = BigInt.asIntN(32, seconds)
  const epoch = BigInt.asUintN(2, (seconds - low) >> 32n)
  return { seconds: Number(low), extra: Number((nanoseconds << 2n) | epoch) }
}

/** `made`: when the file system was, which is when the inode was. */
export function writeInode(into: DataView, inode: Inode, made: bigint): void {
  const modified = splitTime(inode.modified)
  const created = splitTime(made)
  into.setUint16(0x0, KINDS[inode.kind].format | inode.mode, true)
  into.setUint16(0x2, inode.uid & 0xffff, true)
  into.setUint32(0x4, inode.size >>> 0, true)
  into.setInt32(0x8, modified.seconds, true) // read
  into.setInt32(0xc, modified.seconds, true) // changed
  into.setInt32(0x10, modified.seconds, true)
  into.setUint16(0x18, inode.gid & 0xffff, true)
  into.setUint16(0x1a, inode.links, true)
  const sectors = inode.blocks * (BLOCK / 512)
  into.setUint32(0x1c, sectors >>> 0, true)
  into.setUint32(0x20, inode.flags, true)
  new Uint8Array(into.buffer, into.byteOffset).set(inode.map, 0x28)
  into.setUint32(0x68, inode.attributeBlock, true)
  into.setUint32(0x6c, Math.floor(inode.size / 2 ** 32), true)
  into.setUint16(0x74, Math.floor(sectors / 2 ** 32), true)
  into.setUint16(0x78, inode.uid >>> 16, true)
  into.setUint16(0x7a, inode.gid >>> 16, true)
  into.setUint16(0x80, EXTRA_BYTES, true)
  into.setUint32(0x84, modified.extra, true)
  into.setUint32(0x88, modified.extra, true)
  into.setUint32(0x8c, modified.extra, true)
  into.setInt32(0x90, created.seconds, true)
  into.setUint32(0x94, created.extra, true)
  new Uint8Array(into.buffer, into.byteOffset).set(inode.attributes, ATTRIBUTES_AT)
}

/** Numbers of a device: 8 and 8 bits in the first word, or 12 and 20 in the second. (Linux, include/linux/kdev_t.h) */
export function deviceMap(major: number, minor: number): Bytes {
  const map = new Uint8Array(MAP_BYTES)
  const view = dataView(map)
  if (major < 256 && minor < 256) view.setUint32(0, (major << 8) | minor, true)
  else view.setUint32(4, ((minor & 0xff) | (major << 8) | ((minor & ~0xff) << 12)) >>> 0, true)
  return map
}
