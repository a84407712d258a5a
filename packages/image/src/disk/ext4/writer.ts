/**
 * Makes an ext4 file system of entries on an empty disk, in one pass: content is written as it arrives, folders and inodes at the end.
 * Each block of metadata is written once. Only for empty disks.
 */

import type { BlockBackend } from '@nonroot/contracts'
import { formatSize, NonrootError } from '@nonroot/contracts'
import { dataView, encodeText } from '../../bytes.ts'
import type { Bytes } from '../../bytes.ts'
import type { DiskEntry } from '../entry.ts'
import { packAttributes } from './attributes.ts'
import { BlockWriter } from './block-writer.ts'
import { directoryBlocks, LONGEST_NAME } from './directory.ts'
import { extentsOf, extentTree, MOST_EXTENTS } from './extents.ts'
import type { Run } from './extents.ts'
import { BLOCK, BLOCKS_PER_GROUP, geometryOf, INODE_BYTES } from './geometry.ts'
import type { Geometry } from './geometry.ts'
import { createInode, deviceMap, KINDS, MAP_BYTES, USES_EXTENTS, writeInode } from './inode.ts'
import type { Inode } from './inode.ts'
import { descriptors, FirstInode, JournalInode, journalSuperblock, RootInode, superblock } from './superblock.ts'
import type { GroupUse, Identity } from './superblock.ts'

/** EXT4_LINK_MAX. A folder with more says one. */
const MOST_LINKS = 65000
const LOST_AND_FOUND_BLOCKS = 4 // fsck puts names there without having to allocate
const LONGEST_LINK = BLOCK - 1

interface Node {
  readonly inode: Inode
  readonly runs: Run[]
  /** Of a folder. */
  readonly children?: Map<string, Node>
}

export interface Ext4Options extends Identity {
  /** In bytes. */
  readonly size: number
  /** For messages. */
  readonly name: string
}

export interface Ext4Summary {
  readonly files: number
  readonly usedBytes: number
  readonly freeBytes: number
}

export class Ext4Writer {
  readonly #options: Ext4Options
  readonly #geometry: Geometry
  readonly #blocks: BlockWriter
  /** By number; those that are gone have no links. */
  readonly #nodes = new Map<number, Node>()
  readonly #root: Node
  #journal: Inode | undefined
  #nextInode = FirstInode

  /** `disk` has `options.size` bytes or more, all zero. */
  constructor(disk: BlockBackend, options: Ext4Options) {
    this.#options = options
    this.#geometry = geometryOf(options.size, options.name)
    this.#blocks = new BlockWriter(disk, this.#geometry)
    this.#root = this.#folder(RootInode, 0o755)
    this.#root.children!.set('lost+found', this.#folder(this.#newNumber('lost+found'), 0o700))
  }

  #folder(number: number, mode: number): Node {
    const inode = createInode(number, 'directory')
    Object.assign(inode, { mode, modified: this.#options.made, links: 1 })
    const node = { inode, runs: [], children: new Map<string, Node>() }
    this.#nodes.set(number, node)
    return node
  }

  #newNumber(path: string): number {
    const { inodes } = this.#geometry
    if (this.#nextInode > inodes)
      throw this.#refuse(path, `there is room for ${inodes} files`, 'give a larger size: it has more of them')
    return this.#nextInode++
  }

  #refuse(path: string, message: string, remedy?: string): NonrootError {
    const { name, size } = this.#options
    return new NonrootError({
      code: 'host.backend',
      message: `${name}, ${formatSize(size)}: /${path}: ${message}`,
      thing: name,
      value: path,
      ...(remedy === undefined ? {} : { remedy }),
    })
  }

  #allocate(path: string, blocks: number): Run[] {
    const runs = this.#blocks.allocate(blocks)
    if (!runs) throw this.#refuse(path, `${formatSize(blocks * BLOCK)} do not fit any more`, 'give a larger size')
    return runs
  }

  async add(entry: DiskEntry): Promise<void> {
    const { path, kind } = entry
    if (path === '') return this.#describe(this.#root, entry)
    const cut = path.lastIndexOf('/')
    const [parent, name] = [this.#parent(path.slice(0, Math.max(cut, 0))), path.slice(cut + 1)]
    if (name === '.' || name === '..' || encodeText(name).length > LONGEST_NAME)
      throw this.#refuse(path, `a name of at most ${LONGEST_NAME} bytes is expected`)
    const there = parent.children!.get(name)
    if (kind === 'directory' && there?.children) return this.#describe(there, entry)
    if (kind === 'hardLink') return this.#link(parent, name, entry)
    if (there) this.#remove(path, there)
    const node: Node =
      kind === 'directory'
        ? this.#folder(this.#newNumber(path), 0)
        : { inode: createInode(this.#newNumber(path), kind), runs: [] }
    this.#nodes.set(node.inode.number, node)
    parent.children!.set(name, node)
    node.inode.links = 1
    await this.#describe(node, entry)
    if (kind === 'file') await this.#fill(node, entry)
    else if (kind === 'symbolicLink') await this.#target(node, entry)
    else if (kind === 'characterDevice' || kind === 'blockDevice')
      node.inode.map = deviceMap(entry.deviceMajor, entry.deviceMinor)
  }

  /** Folders that the source does not mention are root's. */
  #parent(path: string): Node {
    let node = this.#root
    if (path === '') return node
    for (const name of path.split('/')) {
      let next = node.children!.get(name)
      if (!next) {
        next = this.#folder(this.#newNumber(path), 0o755)
        node.children!.set(name, next)
      }
      if (!next.children) throw this.#refuse(path, `${name} is no folder, but something is in it`)
      node = next
    }
    return node
  }

  #find(path: string): Node | undefined {
    let node: Node | undefined = this.#root
    for (const name of path.split('/')) node = node?.children?.get(name)
    return node
  }

  #link(parent: Node, name: string, { path, linkTarget }: DiskEntry): void {
    const target = this.#find(linkTarget)
    if (!target || target.children)
      throw this.#refuse(path, `it is a further name of /${linkTarget}, which is not there`)
    if (target.inode.links >= MOST_LINKS) throw this.#refuse(path, `/${linkTarget} has ${MOST_LINKS} names already`)
    const there = parent.children!.get(name)
    if (there === target) return
    if (there) this.#remove(path, there)
    parent.children!.set(name, target)
    target.inode.links++
  }

  #remove(path: string, { inode, runs, children }: Node): void {
    if (children) throw this.#refuse(path, 'it is a folder, and then something else')
    if (--inode.links > 0) return
    this.#nodes.delete(inode.number)
    this.#blocks.free(runs)
  }

  async #describe(node: Node, entry: DiskEntry): Promise<void> {
    const { inode } = node
    inode.mode = entry.mode
    inode.uid = entry.uid
    inode.gid = entry.gid
    inode.modified = entry.modified
    const { inode: attributes, block, fits } = packAttributes(entry.attributes)
    if (!fits) throw this.#refuse(entry.path, `its extended attributes have more than ${BLOCK} bytes`)
    if (attributes) inode.attributes = attributes
    if (!block) return
    if (inode.attributeBlock === 0) {
      const [run] = this.#allocate(entry.path, 1)
      inode.attributeBlock = run!.start
      inode.blocks++
      node.runs.push(run!)
    }
    await this.#blocks.write(inode.attributeBlock * BLOCK, block)
  }

  /** A place for `size` bytes, known to the inode. */
  async #place(node: Node, path: string, size: number): Promise<Run[]> {
    const { inode } = node
    const runs = this.#allocate(path, Math.ceil(size / BLOCK))
    const extents = extentsOf(runs)
    if (extents.length > MOST_EXTENTS)
      throw this.#refuse(path, `it would lie in ${extents.length} pieces, more than ${MOST_EXTENTS}`)
    node.runs.push(...runs)
    const tree = extentTree(extents, () => {
      const [run] = this.#allocate(path, 1)
      node.runs.push(run!)
      return run!.start
    })
    inode.map = tree.map
    inode.flags |= USES_EXTENTS
    inode.size = size
    inode.blocks += Math.ceil(size / BLOCK) + tree.blocks.length
    for (const { at, bytes } of tree.blocks) await this.#blocks.write(at * BLOCK, bytes)
    return runs
  }

  async #fill(node: Node, { path, size, content }: DiskEntry): Promise<void> {
    const runs = await this.#place(node, path, size)
    let [run, at, total] = [0, 0, 0]
    const changed = (): NonrootError =>
      this.#refuse(path, `it has not the ${size} bytes it was said to have`, 'do not change it meanwhile')
    for await (const chunk of content) {
      total += chunk.length
      if (total > size) throw changed()
      for (let done = 0; done < chunk.length;) {
        const { start, length } = runs[run]!
        const part = chunk.subarray(done, done + length * BLOCK - at)
        await this.#blocks.write(start * BLOCK + at, part)
        done += part.length
        at += part.length
        if (at === length * BLOCK) [run, at] = [run + 1, 0]
      }
    }
    if (total < size) throw changed()
    if (at > 0) await this.#blocks.pad(runs[run]!.start * BLOCK + at)
  }

  async #target(node: Node, { path, linkTarget }: DiskEntry): Promise<void> {
    const target = encodeText(linkTarget)
    if (target.length === 0 || target.length > LONGEST_LINK)
      throw this.#refuse(path, `a link to a name of ${target.length} bytes`)
    const { inode } = node
    if (target.length < MAP_BYTES) {
      inode.size = target.length
      inode.map = new Uint8Array(MAP_BYTES)
      inode.map.set(target)
    } else await this.#writeWhole(node, path, target)
  }

  async #writeWhole(node: Node, path: string, bytes: Bytes): Promise<void> {
    let done = 0
    for (const { start, length } of await this.#place(node, path, bytes.length)) {
      const part = bytes.subarray(done, done + length * BLOCK)
      await this.#blocks.write(start * BLOCK, part)
      await this.#blocks.pad(start * BLOCK + part.length)
      done += part.length
    }
  }

  // The end

  async finish(): Promise<Ext4Summary> {
    await this.#writeFolders('', this.#root, this.#root)
    await this.#writeJournal()
    const use = await this.#writeBitmaps()
    await this.#writeInodes()
    const { groups, blocks } = this.#geometry
    const table = descriptors(groups, use, this.#geometry.descriptorBlocks)
    for (const [index, { start, hasSuperblock }] of groups.entries()) {
      if (!hasSuperblock) continue
      // The first block begins with room for a boot sector.
      const at = index === 0 ? 1024 : start * BLOCK
      await this.#blocks.write(at, superblock(this.#geometry, this.#options, use, this.#journal, index))
      await this.#blocks.write((start + 1) * BLOCK, table)
    }
    await this.#blocks.finish()
    const free = use.reduce((sum, { freeBlocks }) => sum + freeBlocks, 0)
    return { files: this.#nodes.size, usedBytes: (blocks - free) * BLOCK, freeBytes: free * BLOCK }
  }

  async #writeFolders(path: string, node: Node, parent: Node): Promise<void> {
    const { inode, children } = node
    const folders = [...children!].filter(([, child]) => child.children)
    // Its name, its own ".", and the ".." of each folder in it.
    inode.links = folders.length + 2 > MOST_LINKS ? 1 : folders.length + 2
    const names = [...children!].map(([name, child]) => ({
      name,
      inode: child.inode.number,
      fileType: KINDS[child.inode.kind].fileType,
    }))
    const fileType = KINDS.directory.fileType
    const own = [
      { name: '.', inode: inode.number, fileType },
      { name: '..', inode: parent.inode.number, fileType },
    ]
    const least = path === 'lost+found' ? LOST_AND_FOUND_BLOCKS : 1
    await this.#writeWhole(node, path, directoryBlocks([...own, ...names], least))
    for (const [name, child] of folders) await this.#writeFolders(path === '' ? name : `${path}/${name}`, child, node)
  }

  async #writeJournal(): Promise<void> {
    const { journalBlocks } = this.#geometry
    if (journalBlocks === 0) return
    const inode = createInode(JournalInode, 'file')
    Object.assign(inode, { mode: 0o600, modified: this.#options.made, links: 1 })
    const node = { inode, runs: [] }
    const [first] = await this.#place(node, '(the journal)', journalBlocks * BLOCK)
    await this.#blocks.write(first!.start * BLOCK, journalSuperblock(journalBlocks, this.#options.uuid))
    this.#nodes.set(JournalInode, node)
    this.#journal = inode
  }

  async #writeBitmaps(): Promise<GroupUse[]> {
    const { groups, inodesPerGroup } = this.#geometry
    const numbers = groups.map(() => ({ inodes: 0, directories: 0, bitmap: new Uint8Array(BLOCK).fill(0xff) }))
    for (const { bitmap } of numbers) setBits(bitmap, 0, inodesPerGroup, false)
    const taken = new Set([...Array.from({ length: FirstInode - 1 }, (_, index) => index + 1), ...this.#nodes.keys()])
    for (const number of taken) {
      const group = numbers[Math.floor((number - 1) / inodesPerGroup)]!
      group.inodes++
      if (this.#nodes.get(number)?.children) group.directories++
      setBits(group.bitmap, (number - 1) % inodesPerGroup, 1, true)
    }
    const use: GroupUse[] = []
    for (const [index, { start, length, blockBitmap, inodeBitmap }] of groups.entries()) {
      const bitmap = new Uint8Array(BLOCK).fill(0xff)
      bitmap.set(this.#blocks.used.subarray(start / 8, Math.ceil((start + length) / 8)))
      setBits(bitmap, length, BLOCKS_PER_GROUP - length, true)
      const { inodes, directories, bitmap: inodeBits } = numbers[index]!
      use.push({ freeBlocks: countZeros(bitmap), freeInodes: inodesPerGroup - inodes, directories })
      await this.#blocks.write(blockBitmap * BLOCK, bitmap)
      await this.#blocks.write(inodeBitmap * BLOCK, inodeBits)
    }
    return use
  }

  async #writeInodes(): Promise<void> {
    const { groups, inodesPerGroup } = this.#geometry
    const perBlock = BLOCK / INODE_BYTES
    const blocks = new Map<number, Uint8Array>()
    for (const { inode } of this.#nodes.values()) {
      const at = (inode.number - 1) % inodesPerGroup
      const place = groups[Math.floor((inode.number - 1) / inodesPerGroup)]!.inodeTable + Math.floor(at / perBlock)
      const block = blocks.get(place) ?? new Uint8Array(BLOCK)
      blocks.set(place, block)
      writeInode(dataView(block.subarray((at % perBlock) * INODE_BYTES)), inode, this.#options.made)
    }
    for (const [place, block] of [...blocks].sort(([a], [b]) => a - b)) await this.#blocks.write(place * BLOCK, block)
  }
}

function setBits(bitmap: Uint8Array, from: number, count: number, value: boolean): void {
  for (let bit = from; bit < from + count; bit++) {
    if (value) bitmap[bit >> 3]! |= 1 << (bit & 7)
    else bitmap[bit >> 3]! &= ~(1 << (bit & 7))
  }
}

function countZeros(bitmap: Uint8Array): number {
  let zeros = 0
  for (const byte of bitmap) for (let bit = 0; bit < 8; bit++) zeros += ((byte >> bit) & 1) ^ 1
  return zeros
}
