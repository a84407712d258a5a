/** Extended attributes as bytes, in the inode or in a block of their own. (Linux, "ext4 Data Structures and Algorithms", "Extended Attributes") */

import { alignUp, dataView, encodeText } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import { BLOCK } from './geometry.ts'
import { ATTRIBUTE_BYTES } from './inode.ts'

const MAGIC = 0xea020000
const BLOCK_HEADER = 32
const ENTRY_HEADER = 16
const END = 4 // zeros after the last entry

/** Longest first: what is left of a name is stored. Access control lists have a form of their own on the disk. */
const PREFIXES: readonly { readonly prefix: string; readonly index: number }[] = [
  { prefix: 'system.posix_acl_access', index: 2 },
  { prefix: 'system.posix_acl_default', index: 3 },
  { prefix: 'security.', index: 6 },
  { prefix: 'trusted.', index: 4 },
  { prefix: 'system.', index: 7 },
  { prefix: 'user.', index: 1 },
]

interface Attribute {
  readonly index: number
  readonly name: Bytes
  readonly value: Bytes
}

const ACL_NAMED = [2, 8] // a user and a group by number; the other kinds of entry have none

/** From Linux's form (version 2: tag, permissions and number of each) to ext4's (version 1: no number where there is none to say). */
function aclOnDisk(value: Bytes): Bytes {
  const from = dataView(value)
  const bytes: number[] = [1, 0, 0, 0]
  for (let at = 4; at + 8 <= value.length; at += 8)
    bytes.push(...value.subarray(at, at + (ACL_NAMED.includes(from.getUint16(at, true)) ? 8 : 4)))
  return Uint8Array.from(bytes)
}

function parse(name: string, value: Bytes): Attribute | undefined {
  const known = PREFIXES.find(({ prefix }) => name.startsWith(prefix))
  if (!known) return undefined
  const isAcl = known.index === 2 || known.index === 3
  return {
    index: known.index,
    name: encodeText(name.slice(known.prefix.length)),
    value: isAcl ? aclOnDisk(value) : value,
  }
}

const rotate = (hash: number, bits: number): number => ((hash << bits) | (hash >>> (32 - bits))) >>> 0

/** (Linux, fs/ext4/xattr.c, ext4_xattr_hash_entry) */
function hashOf({ name, value }: Attribute): number {
  let hash = 0
  for (const byte of name) hash = (rotate(hash, 5) ^ byte) >>> 0
  const padded = new Uint8Array(alignUp(value.length, 4))
  padded.set(value)
  const view = dataView(padded)
  for (let at = 0; at < padded.length; at += 4) hash = (rotate(hash, 16) ^ view.getUint32(at, true)) >>> 0
  return hash
}

/** Entries from `at` up, values from the end down; places of values count from `base`. False if they do not fit. */
function put(bytes: Bytes, at: number, base: number, attributes: readonly Attribute[], hashed: boolean): boolean {
  const view = dataView(bytes)
  let values = bytes.length
  for (const attribute of attributes) {
    const { index, name, value } = attribute
    values -= alignUp(value.length, 4)
    const next = at + alignUp(ENTRY_HEADER + name.length, 4)
    if (next + END > values) return false
    view.setUint8(at, name.length)
    view.setUint8(at + 1, index)
    view.setUint16(at + 2, value.length === 0 ? 0 : values - base, true)
    view.setUint32(at + 8, value.length, true)
    if (hashed) view.setUint32(at + 12, hashOf(attribute), true)
    bytes.set(name, at + ENTRY_HEADER)
    bytes.set(value, values)
    at = next
  }
  return true
}

const compareBytes = (a: Bytes, b: Bytes): number => {
  for (let at = 0; at < a.length; at++) if (a[at] !== b[at]) return a[at]! - b[at]!
  return 0
}

/** In a block, entries are in this order. */
const inOrder = (a: Attribute, b: Attribute): number =>
  a.index - b.index || a.name.length - b.name.length || compareBytes(a.name, b.name)

/** Bytes of the inode, or of a block; neither where they are too many, or there are none that ext4 knows. */
export function packAttributes(all: ReadonlyMap<string, Bytes>): { inode?: Bytes; block?: Bytes; fits: boolean } {
  const attributes = [...all].flatMap(([name, value]) => parse(name, value) ?? []).sort(inOrder)
  if (attributes.length === 0) return { fits: true }
  const inode = new Uint8Array(ATTRIBUTE_BYTES)
  dataView(inode).setUint32(0, MAGIC, true)
  if (put(inode, 4, 4, attributes, false)) return { inode, fits: true }
  const block = new Uint8Array(BLOCK)
  const view = dataView(block)
  view.setUint32(0, MAGIC, true)
  view.setUint32(4, 1, true) // inodes that refer to it
  view.setUint32(8, 1, true) // blocks
  if (!put(block, BLOCK_HEADER, 0, attributes, true)) return { fits: false }
  let hash = 0
  for (const attribute of attributes) hash = (rotate(hash, 16) ^ hashOf(attribute)) >>> 0
  view.setUint32(12, hash, true)
  return { block, fits: true }
}
