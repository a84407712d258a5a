/**
 * Reads files out of an ext4 file system, ours or mke2fs's: enough to boot from it. Never writes, and does not replay a journal: on a disk that was not unmounted, changes that are only in the journal are missing.
 */

import type { BlockBackend } from '@nonroot/contracts'
import { dataView, decodeText } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import { invalidImage } from '../../errors.ts'
import { formatUuid } from './make.ts'

const SUPERBLOCK_AT = 1024
const MAGIC = 0xef53
const ROOT = 2
const USES_EXTENTS = 0x80000
const EXTENT_MAGIC = 0xf30a
const INITIALIZED = 32768 // extents longer than this are by as much shorter, and zeros
const BIT64 = 0x80
const FORMAT = 0o170000
const FOLDER = 0o040000
const FILE = 0o100000
const LINK = 0o120000
const MOST_LINKS = 40 // one after the other, as Linux
const DEEPEST_TREE = 5
const LONGEST_READ = 1 << 30
const IN_INODE = 60

interface Inode {
  readonly mode: number
  readonly size: number
  readonly flags: number
  readonly map: Bytes
}

export class Ext4Reader {
  /** As `root=UUID=` has it. */
  readonly uuid: string
  readonly #disk: BlockBackend
  readonly #name: string
  readonly #blockSize: number
  readonly #inodeSize: number
  readonly #inodesPerGroup: number
  readonly #descriptorSize: number
  readonly #descriptorsAt: number

  private constructor(disk: BlockBackend, name: string, superblock: DataView) {
    this.#disk = disk
    this.#name = name
    this.#blockSize = 1024 << Math.min(superblock.getUint32(0x18, true), 6)
    this.#inodeSize = superblock.getUint32(0x4c, true) === 0 ? 128 : superblock.getUint16(0x58, true)
    this.#inodesPerGroup = superblock.getUint32(0x28, true)
    this.#descriptorSize = superblock.getUint32(0x60, true) & BIT64 ? superblock.getUint16(0xfe, true) : 32
    this.#descriptorsAt = (superblock.getUint32(0x14, true) + 1) * this.#blockSize
    this.uuid = formatUuid(new Uint8Array(superblock.buffer, superblock.byteOffset + 0x68, 16))
    if (this.#inodesPerGroup === 0 || this.#inodeSize < 128 || this.#descriptorSize < 32)
      throw this.#bad('superblock', 'damaged')
  }

  /** Undefined where the disk holds something else. `name` is for messages. */
  static async open(disk: BlockBackend, name: string): Promise<Ext4Reader | undefined> {
    if (disk.size < 2 * SUPERBLOCK_AT) return undefined
    const bytes = new Uint8Array(SUPERBLOCK_AT)
    await disk.read(SUPERBLOCK_AT, bytes)
    const view = dataView(bytes)
    return view.getUint16(0x38, true) === MAGIC ? new Ext4Reader(disk, name, view) : undefined
  }

  #bad(field: string, value: string): Error {
    return invalidImage(this.#name, field, value, 'check the file system: e2fsck')
  }

  /** The file that a path leads to, links followed; undefined where there is none. Its own path is in the result. */
  async find(path: string): Promise<{ path: string; read: () => Promise<Bytes> } | undefined> {
    const found = await this.#walk(path)
    if (!found || (found.inode.mode & FORMAT) !== FILE) return undefined
    return { path: found.path, read: () => this.#content(found.inode, found.path) }
  }

  /** Names in a folder, as they lie; none where there is no such folder. */
  async list(path: string): Promise<string[]> {
    const found = await this.#walk(path)
    return found && (found.inode.mode & FORMAT) === FOLDER ? [...(await this.#names(found.inode, path)).keys()] : []
  }

  async #walk(path: string): Promise<{ path: string; inode: Inode } | undefined> {
    const steps = path.split('/')
    const at: { name: string; inode: Inode }[] = [{ name: '', inode: await this.#inode(ROOT) }]
    let links = 0
    for (let step = steps.shift(); step !== undefined; step = steps.shift()) {
      if (step === '' || step === '.') continue
      if (step === '..') {
        if (at.length > 1) at.pop()
        continue
      }
      const folder = at.at(-1)!.inode
      if ((folder.mode & FORMAT) !== FOLDER) return undefined
      const number = (await this.#names(folder, step)).get(step)
      if (number === undefined) return undefined
      const inode = await this.#inode(number)
      if ((inode.mode & FORMAT) !== LINK) {
        at.push({ name: step, inode })
        continue
      }
      if (++links > MOST_LINKS) return undefined
      const target = decodeText(await this.#target(inode, step))
      if (target.startsWith('/')) at.splice(1)
      steps.unshift(...target.split('/'))
    }
    return { path: at.map(({ name }) => name).join('/') || '/', inode: at.at(-1)!.inode }
  }

  async #target(inode: Inode, name: string): Promise<Bytes> {
    return inode.size < IN_INODE && !(inode.flags & USES_EXTENTS)
      ? inode.map.subarray(0, inode.size)
      : this.#content(inode, name)
  }

  async #read(offset: number, length: number): Promise<DataView> {
    if (!(offset + length <= this.#disk.size)) throw this.#bad('block', `at ${offset}, beyond the end of the disk`)
    // Whole sectors.
    const from = Math.floor(offset / 512) * 512
    const bytes = new Uint8Array(Math.ceil((offset + length - from) / 512) * 512)
    await this.#disk.read(from, bytes)
    return new DataView(bytes.buffer, offset - from, length)
  }

  async #inode(number: number): Promise<Inode> {
    const group = Math.floor((number - 1) / this.#inodesPerGroup)
    const descriptor = await this.#read(this.#descriptorsAt + group * this.#descriptorSize, this.#descriptorSize)
    const high = this.#descriptorSize >= 64 ? descriptor.getUint32(0x28, true) : 0
    const table = (high * 2 ** 32 + descriptor.getUint32(8, true)) * this.#blockSize
    const view = await this.#read(table + ((number - 1) % this.#inodesPerGroup) * this.#inodeSize, 128)
    return {
      mode: view.getUint16(0, true),
      size: view.getUint32(4, true) + view.getUint32(0x6c, true) * 2 ** 32,
      flags: view.getUint32(0x20, true),
      map: new Uint8Array(view.buffer, view.byteOffset + 0x28, IN_INODE),
    }
  }

  async #names(folder: Inode, path: string): Promise<Map<string, number>> {
    const names = new Map<string, number>()
    const bytes = await this.#content(folder, path)
    const view = dataView(bytes)
    // Blocks of an index look like entries without an inode.
    for (let at = 0; at + 8 <= bytes.length;) {
      const length = view.getUint16(at + 4, true)
      if (length < 8) throw this.#bad(`folder ${path}`, 'damaged')
      const number = view.getUint32(at, true)
      const name = bytes.subarray(at + 8, at + 8 + view.getUint8(at + 6))
      if (number !== 0) names.set(decodeText(name), number)
      at += length
    }
    return names
  }

  async #content({ size, flags, map }: Inode, path: string): Promise<Bytes> {
    if (size > LONGEST_READ) throw this.#bad(`size of ${path}`, String(size))
    if (!(flags & USES_EXTENTS) && size > 0) throw this.#bad(path, 'without extents, as ext2 and ext3 have it')
    const bytes = new Uint8Array(size)
    if (size > 0) await this.#readTree(dataView(map), bytes, path, 0)
    return bytes
  }

  async #readTree(node: DataView, into: Bytes, path: string, depth: number): Promise<void> {
    const entries = node.getUint16(2, true)
    if (node.getUint16(0, true) !== EXTENT_MAGIC || depth > DEEPEST_TREE || 12 + entries * 12 > node.byteLength)
      throw this.#bad(`extents of ${path}`, 'damaged')
    const isLeaf = node.getUint16(6, true) === 0
    for (let at = 12; at < 12 + entries * 12; at += 12) {
      if (!isLeaf) {
        const block = node.getUint32(at + 4, true) + node.getUint16(at + 8, true) * 2 ** 32
        await this.#readTree(await this.#read(block * this.#blockSize, this.#blockSize), into, path, depth + 1)
        continue
      }
      const blocks = node.getUint16(at + 4, true)
      if (blocks > INITIALIZED) continue
      const start = (node.getUint32(at + 8, true) + node.getUint16(at + 6, true) * 2 ** 32) * this.#blockSize
      const to = node.getUint32(at, true) * this.#blockSize
      const length = Math.min(blocks * this.#blockSize, into.length - to)
      if (length <= 0) continue
      const view = await this.#read(start, length)
      into.set(new Uint8Array(view.buffer, view.byteOffset, length), to)
    }
  }
}
