/** Entries of a disk: files with owners, modes, times and attributes. Independent of their source. */

import type { Bytes } from '../bytes.ts'

export type EntryKind =
  'file' | 'directory' | 'symbolicLink' | 'hardLink' | 'characterDevice' | 'blockDevice' | 'fifo' | 'socket'

export interface DiskEntry {
  /** From the root, as in "etc/passwd"; "" is the root itself. */
  readonly path: string
  readonly kind: EntryKind
  /** Permission bits alone. */
  readonly mode: number
  readonly uid: number
  readonly gid: number
  /** Since 1970, in nanoseconds. */
  readonly modified: bigint
  /** Of a file, in bytes. */
  readonly size: number
  /** Of a symbolic link; of a hard link the path of the file, which came before. */
  readonly linkTarget: string
  readonly deviceMajor: number
  readonly deviceMinor: number
  /** Extended attributes by their whole names, as in "security.capability". */
  readonly attributes: ReadonlyMap<string, Bytes>
  /** Of a file: `size` bytes. Good until the next entry is asked for. */
  readonly content: AsyncIterable<Bytes> | Iterable<Bytes>
}

/** In the order of the source: folders before what is in them, files before their further names. */
export type DiskEntries = AsyncIterable<DiskEntry>

const NO_ATTRIBUTES: ReadonlyMap<string, Bytes> = new Map()

/** An entry with what it does not say taken as a package's files have it: root's, no attributes, no content. */
export const diskEntry = (
  entry: Pick<DiskEntry, 'path' | 'kind' | 'mode'> & Partial<DiskEntry>,
  modified = 0n,
): DiskEntry => ({
  uid: 0,
  gid: 0,
  modified,
  size: 0,
  linkTarget: '',
  deviceMajor: 0,
  deviceMinor: 0,
  attributes: NO_ATTRIBUTES,
  content: [],
  ...entry,
})

export const fileEntry = (path: string, data: Bytes, mode = 0o644, modified = 0n): DiskEntry =>
  diskEntry({ path, kind: 'file', mode, size: data.length, content: [data] }, modified)
