/** Extent trees: the runs of blocks that hold a file. (Linux, "ext4 Data Structures and Algorithms", "Extent Tree") */

import { dataView } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import { BLOCK } from './geometry.ts'
import { MAP_BYTES } from './inode.ts'

export interface Run {
  readonly start: number
  /** Blocks. */
  readonly length: number
}

const MAGIC = 0xf30a
const HEADER = 12
const ENTRY = 12
/** A longer one would be taken as not yet written. */
const LONGEST_EXTENT = 32768
const IN_INODE = (MAP_BYTES - HEADER) / ENTRY
const IN_BLOCK = Math.floor((BLOCK - HEADER) / ENTRY)
/** Two levels: 1360 runs. A writer that goes over the disk from one end to the other needs one for each group, of 128 MiB. */
export const MOST_EXTENTS = IN_INODE * IN_BLOCK

interface Extent extends Run {
  /** In the file. */
  readonly at: number
}

export function extentsOf(runs: readonly Run[]): Extent[] {
  const extents: Extent[] = []
  let at = 0
  for (const run of runs) {
    for (let done = 0; done < run.length; done += LONGEST_EXTENT) {
      const length = Math.min(LONGEST_EXTENT, run.length - done)
      extents.push({ at, start: run.start + done, length })
      at += length
    }
  }
  return extents
}

function header(view: DataView, entries: number, most: number, depth: number): void {
  view.setUint16(0, MAGIC, true)
  view.setUint16(2, entries, true)
  view.setUint16(4, most, true)
  view.setUint16(6, depth, true)
}

function leaf(bytes: Bytes, extents: readonly Extent[], most: number): Bytes {
  const view = dataView(bytes)
  header(view, extents.length, most, 0)
  extents.forEach(({ at, start, length }, index) => {
    view.setUint32(HEADER + index * ENTRY, at, true)
    view.setUint16(HEADER + index * ENTRY + 4, length, true)
    view.setUint32(HEADER + index * ENTRY + 8, start, true)
  })
  return bytes
}

/** The inode's block map, and the blocks it refers to: `allocate` gives each a place. */
export function extentTree(
  extents: readonly Extent[],
  allocate: () => number,
): { map: Bytes; blocks: { readonly at: number; readonly bytes: Bytes }[] } {
  if (extents.length <= IN_INODE) return { map: leaf(new Uint8Array(MAP_BYTES), extents, IN_INODE), blocks: [] }
  const map = new Uint8Array(MAP_BYTES)
  const view = dataView(map)
  const blocks = []
  for (let from = 0; from < extents.length; from += IN_BLOCK) {
    const part = extents.slice(from, from + IN_BLOCK)
    const at = allocate()
    view.setUint32(HEADER + blocks.length * ENTRY, part[0]!.at, true)
    view.setUint32(HEADER + blocks.length * ENTRY + 4, at, true)
    blocks.push({ at, bytes: leaf(new Uint8Array(BLOCK), part, IN_BLOCK) })
  }
  header(view, blocks.length, IN_INODE, 1)
  return { map, blocks }
}
