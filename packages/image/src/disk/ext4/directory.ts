/** Encodes folders as blocks: a linear list of names and inodes. Linux adds an index when a folder grows. (Linux, "ext4 Data Structures and Algorithms", "Linear Directories") */

import { alignUp, concatBytes, dataView, encodeText } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import { BLOCK } from './geometry.ts'

const HEADER = 8
export const LONGEST_NAME = 255

export interface Name {
  readonly name: string
  readonly inode: number
  readonly fileType: number
}

/** `least`: blocks that are there even if nothing is in them. */
export function directoryBlocks(names: Iterable<Name>, least = 1): Bytes {
  const blocks: Bytes[] = []
  let view: DataView | undefined
  let [at, last] = [0, 0]
  // The last entry of a block reaches to its end.
  const close = (): void => view?.setUint16(last + 4, BLOCK - last, true)
  const open = (): DataView => {
    close()
    const block = new Uint8Array(BLOCK)
    blocks.push(block)
    ;[at, last] = [0, 0]
    return (view = dataView(block))
  }
  for (const { name, inode, fileType } of names) {
    const bytes = encodeText(name)
    const length = alignUp(HEADER + bytes.length, 4)
    const into = view && at + length <= BLOCK ? view : open()
    into.setUint32(at, inode, true)
    into.setUint16(at + 4, length, true)
    into.setUint8(at + 6, bytes.length)
    into.setUint8(at + 7, fileType)
    blocks.at(-1)!.set(bytes, at + HEADER)
    last = at
    at += length
  }
  while (blocks.length < least) open()
  close()
  return concatBytes(blocks)
}
