/** The "newc" cpio archive that Linux unpacks as its initramfs, written and read. The same tree gives the same bytes. (Linux, "initramfs buffer format") */
import { type Bytes, alignUp, concatBytes, dataView, decodeText, encodeText } from './bytes.ts'
import { invalidImage } from './errors.ts'
import type { TreeNode } from './tree.ts'

const HEADER = 110
const TRAILER = 'TRAILER!!!'
const FORMAT = {
  directory: 0o040000,
  file: 0o100000,
  symbolicLink: 0o120000,
  characterDevice: 0o020000,
  blockDevice: 0o060000,
} as const

const hex = (value: number): string => (value >>> 0).toString(16).toUpperCase().padStart(8, '0')

function* record(
  path: string,
  ino: number,
  mode: number,
  links: number,
  data: Bytes,
  rdev: readonly [number, number],
): Generator<Bytes> {
  const name = encodeText(`${path}\0`)
  // magic ino mode uid gid nlink mtime filesize devmajor devminor rdevmajor rdevminor namesize check
  const fields = [ino, mode, 0, 0, links, 0, data.length, 0, 0, rdev[0], rdev[1], name.length, 0]
  yield encodeText(`070701${fields.map(hex).join('')}`)
  yield name
  yield new Uint8Array(alignUp(HEADER + name.length, 4) - HEADER - name.length)
  yield data
  yield new Uint8Array(alignUp(data.length, 4) - data.length)
}

const contentOf = (node: TreeNode): Bytes =>
  node.kind === 'file' ? node.data : node.kind === 'symbolicLink' ? encodeText(node.target) : new Uint8Array(0)

/** Owner root, time zero, inodes counted from one, order of the tree: nothing of the host gets in. */
export function writeCpio(tree: { entries(): Iterable<readonly [string, TreeNode]> }): Uint8Array<ArrayBuffer> {
  const parts: Bytes[] = []
  let ino = 1
  for (const [path, node] of tree.entries()) {
    const rdev =
      node.kind === 'characterDevice' || node.kind === 'blockDevice'
        ? ([node.major, node.minor] as const)
        : ([0, 0] as const)
    parts.push(
      ...record(path, ino++, FORMAT[node.kind] | node.mode, node.kind === 'directory' ? 2 : 1, contentOf(node), rdev),
    )
  }
  parts.push(...record(TRAILER, 0, 0, 1, new Uint8Array(0), [0, 0]))
  const length = parts.reduce((sum, part) => sum + part.length, 0)
  parts.push(new Uint8Array(alignUp(length, 512) - length)) // cpio's customary block; also lets archives be joined
  return concatBytes(parts)
}

export interface CpioEntry {
  readonly path: string
  readonly mode: number
  readonly rdev: readonly [number, number]
  readonly data: Bytes
}

/** Entries up to the trailer. For tests and for looking into an image. */
export function readCpio(archive: Bytes, file = 'initramfs'): CpioEntry[] {
  const entries: CpioEntry[] = []
  for (let at = 0; ;) {
    if (at + HEADER > archive.length || decodeText(archive.subarray(at, at + 6)) !== '070701') {
      throw invalidImage(file, `cpio magic at ${at}`, decodeText(archive.subarray(at, at + 6)), 'it should be 070701')
    }
    const field = (index: number) => parseInt(decodeText(archive.subarray(at + 6 + index * 8, at + 14 + index * 8)), 16)
    const nameEnd = at + HEADER + field(11)
    const start = at + alignUp(nameEnd - at, 4)
    const end = start + field(6)
    if (!(end <= archive.length))
      throw invalidImage(file, `cpio record at ${at}`, `ends at ${end}`, 'the archive is truncated')
    const path = decodeText(archive.subarray(at + HEADER, nameEnd - 1))
    if (path === TRAILER) return entries
    entries.push({ path, mode: field(1), rdev: [field(9), field(10)], data: archive.subarray(start, end) })
    at = alignUp(end, 4)
  }
}

/** True for an uncompressed newc archive. */
export const isCpio = (bytes: Bytes): boolean => bytes.length >= HEADER && dataView(bytes).getUint32(0) === 0x30373037
