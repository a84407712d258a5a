/**
 * A shared folder on Linux. Each node is a file descriptor opened with O_PATH and O_NOFOLLOW, and a name is looked up under the descriptor of
 * its folder (`/proc/self/fd/N/name` is what openat is elsewhere): no path of more than one component is ever resolved, so no link and no rename
 * in between leads out.
 */

import { constants } from 'node:fs'
import {
  chmod,
  link,
  lstat,
  mkdir,
  open,
  readdir,
  readlink,
  rename,
  rmdir,
  statfs,
  symlink,
  truncate,
  unlink,
  utimes,
} from 'node:fs/promises'
import type { FileHandle } from 'node:fs/promises'
import type { BigIntStats, Dirent } from 'node:fs'
import { NonrootError } from '@nonroot/contracts'
import type {
  FolderAttributes,
  FolderBackend,
  FolderChanges,
  FolderEntryKind,
  FolderFile,
  FolderNode,
  FolderOpenFlags,
  FolderSpace,
} from '@nonroot/contracts'

/** open(2): refer to the thing without opening it. Not among Node's constants. */
const O_PATH = 0x200000
const HOLD = O_PATH | constants.O_NOFOLLOW
/** Never to be given: a guest's root is not the host's. */
const SET_ID = 0o6000
const NOBODY = 65534
/** Descriptors that one share may hold: a guest must not use up those of the process. */
const MOST_NODES = 8192
const LONGEST_NAME = 255

class PosixError extends Error {
  readonly code: string

  constructor(code: string) {
    super(code)
    this.code = code
  }
}

const fail = (code: string): never => {
  throw new PosixError(code)
}

function checkName(name: string): string {
  if (name === '' || name === '.' || name === '..' || name.includes('/') || name.includes('\0')) fail('EINVAL')
  if (Buffer.byteLength(name) > LONGEST_NAME) fail('ENAMETOOLONG')
  return name
}

const kindOf = (of: BigIntStats | Dirent): FolderEntryKind =>
  of.isFile() ? 'file' : of.isDirectory() ? 'folder' : of.isSymbolicLink() ? 'link' : 'other'

/** What all nodes of a share have in common. */
interface Share {
  readonly readOnly: boolean
  readonly nodes: Set<Node>
  /** The user who runs us is the guest's root; all others are mapped to the overflow user. */
  readonly uid: number
  readonly gid: number
}

class Node implements FolderNode {
  readonly kind: FolderEntryKind
  readonly handle: FileHandle
  readonly device: bigint
  readonly inode: bigint
  readonly #share: Share
  readonly #target: string | undefined
  /** Where it was found: for a second name of a file only, and verified then. */
  parent: Node | undefined
  name: string
  #holders = 1

  private constructor(
    share: Share,
    handle: FileHandle,
    stats: BigIntStats,
    parent: Node | undefined,
    name: string,
    target?: string,
  ) {
    this.#share = share
    this.handle = handle
    this.kind = kindOf(stats)
    this.device = stats.dev
    this.inode = stats.ino
    this.parent = parent
    this.name = name
    this.#target = target
    share.nodes.add(this)
    parent?.retain()
  }

  /** The thing itself, by a path of one unresolved component at most. */
  static async hold(share: Share, path: string, parent: Node | undefined, name: string): Promise<Node> {
    if (share.nodes.size >= MOST_NODES) fail('ENFILE')
    const handle = await open(path, HOLD)
    try {
      const stats = await handle.stat({ bigint: true })
      // A link's text never changes: read now, while we know where it is, and check that it is that one.
      let target: string | undefined
      if (stats.isSymbolicLink()) {
        target = await readlink(path)
        const now = await lstat(path, { bigint: true })
        if (now.ino !== stats.ino || now.dev !== stats.dev) fail('ENOENT')
      }
      return new Node(share, handle, stats, parent, name, target)
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  get path(): string {
    return `/proc/self/fd/${this.handle.fd}`
  }

  #under(name: string): string {
    if (this.kind !== 'folder') fail('ENOTDIR')
    return `${this.path}/${checkName(name)}`
  }

  #writable(): void {
    if (this.#share.readOnly) fail('EROFS')
  }

  async attributes(): Promise<FolderAttributes> {
    const stats = await this.handle.stat({ bigint: true })
    const { uid, gid } = this.#share
    return {
      kind: this.kind,
      // Things of other file systems mounted below have numbers of their own.
      inode: stats.ino ^ (stats.dev << 40n),
      mode: Number(stats.mode),
      uid: Number(stats.uid) === uid ? 0 : NOBODY,
      gid: Number(stats.gid) === gid ? 0 : NOBODY,
      links: Number(stats.nlink),
      size: Number(stats.size),
      blockSize: Number(stats.blksize),
      blocks: Number(stats.blocks),
      accessedNs: stats.atimeNs,
      modifiedNs: stats.mtimeNs,
      changedNs: stats.ctimeNs,
    }
  }

  async change({ mode, size, accessedNs, modifiedNs }: FolderChanges): Promise<void> {
    this.#writable()
    if (this.kind === 'link' || this.kind === 'other') {
      if (mode !== undefined || size !== undefined) fail('EOPNOTSUPP')
      return
    }
    if (mode !== undefined) await chmod(this.path, mode & 0o7777 & ~SET_ID)
    if (size !== undefined) {
      if (this.kind !== 'file') fail('EISDIR')
      await truncate(this.path, size)
    }
    if (accessedNs === undefined && modifiedNs === undefined) return
    const stats = await this.handle.stat({ bigint: true })
    const seconds = (wanted: bigint | 'now' | undefined, before: bigint): number =>
      wanted === 'now' ? Date.now() / 1000 : Number(wanted ?? before) / 1e9
    await utimes(this.path, seconds(accessedNs, stats.atimeNs), seconds(modifiedNs, stats.mtimeNs))
  }

  find(name: string): Promise<FolderNode> {
    return this.#find(name)
  }

  async #find(name: string): Promise<Node> {
    return Node.hold(this.#share, this.#under(name), this, name)
  }

  async list(): Promise<{ name: string; kind: FolderEntryKind }[]> {
    if (this.kind !== 'folder') fail('ENOTDIR')
    const entries = await readdir(this.path, { withFileTypes: true })
    return entries.map((entry) => ({ name: entry.name, kind: kindOf(entry) }))
  }

  async createFile(
    name: string,
    flags: FolderOpenFlags,
    mode: number,
  ): Promise<{ node: FolderNode; file: FolderFile }> {
    this.#writable()
    const path = this.#under(name)
    if (this.#share.nodes.size >= MOST_NODES) fail('ENFILE')
    // Without NONBLOCK, a pipe of the host that bears the name would hold us up.
    const how =
      accessOf(flags) |
      constants.O_CREAT |
      constants.O_NOFOLLOW |
      constants.O_NONBLOCK |
      (flags.exclusive ? constants.O_EXCL : 0)
    const handle = await open(path, how, mode & 0o777)
    try {
      const before = await handle.stat()
      if (!before.isFile()) fail('EACCES')
      if (before.size === 0) await handle.chmod(mode & 0o1777)
      if (flags.truncate) await handle.truncate(0)
      const held = await open(`/proc/self/fd/${handle.fd}`, O_PATH)
      const node = new Node(this.#share, held, await held.stat({ bigint: true }), this, name)
      return { node, file: new OpenFile(handle) }
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  async createFolder(name: string, mode: number): Promise<FolderNode> {
    this.#writable()
    await mkdir(this.#under(name), mode & 0o777)
    const made = await this.#find(name)
    if (made.kind === 'folder') await chmod(made.path, mode & 0o1777)
    return made
  }

  async createLink(name: string, target: string): Promise<FolderNode> {
    this.#writable()
    if (target === '' || target.includes('\0')) fail('EINVAL')
    await symlink(target, this.#under(name))
    return this.#find(name)
  }

  async addName(name: string, of: FolderNode): Promise<void> {
    this.#writable()
    const existing = of as Node
    const path = existing.parent ? existing.parent.#under(existing.name) : fail('EPERM')
    const there = await lstat(path, { bigint: true })
    if (there.ino !== existing.inode || there.dev !== existing.device) fail('ESTALE')
    await link(path, this.#under(name))
  }

  async rename(name: string, into: FolderNode, newName: string): Promise<void> {
    this.#writable()
    const folder = into as Node
    await rename(this.#under(name), folder.#under(newName))
    for (const node of this.#share.nodes) {
      const { parent } = node
      if (node.name !== name || !parent || parent.inode !== this.inode || parent.device !== this.device) continue
      node.name = newName
      node.parent = folder.retain()
      await parent.release()
    }
  }

  async remove(name: string, what: 'file' | 'folder'): Promise<void> {
    this.#writable()
    await (what === 'folder' ? rmdir(this.#under(name)) : unlink(this.#under(name)))
  }

  async open(flags: FolderOpenFlags): Promise<FolderFile> {
    if (flags.write) this.#writable()
    if (this.kind === 'folder') fail('EISDIR')
    // Pipes, sockets and devices of the host are the host's.
    if (this.kind !== 'file') fail(this.kind === 'link' ? 'ELOOP' : 'EACCES')
    const handle = await open(this.path, accessOf(flags) | (flags.truncate ? constants.O_TRUNC : 0))
    return new OpenFile(handle)
  }

  async target(): Promise<string> {
    return this.#target ?? fail('EINVAL')
  }

  retain(): Node {
    this.#holders++
    return this
  }

  async release(): Promise<void> {
    if (--this.#holders > 0) return
    this.#share.nodes.delete(this)
    await this.handle.close()
    await this.parent?.release()
  }
}

const accessOf = ({ read, write }: FolderOpenFlags): number =>
  write ? (read ? constants.O_RDWR : constants.O_WRONLY) : constants.O_RDONLY

class OpenFile implements FolderFile {
  readonly #handle: FileHandle

  constructor(handle: FileHandle) {
    this.#handle = handle
  }

  async read(offset: number, into: Uint8Array): Promise<number> {
    return into.length === 0 ? 0 : (await this.#handle.read(into, 0, into.length, offset)).bytesRead
  }

  async write(offset: number, from: Uint8Array): Promise<number> {
    return from.length === 0 ? 0 : (await this.#handle.write(from, 0, from.length, offset)).bytesWritten
  }

  sync(): Promise<void> {
    return this.#handle.sync()
  }

  close(): Promise<void> {
    return this.#handle.close()
  }
}

export async function openFolder(path: string, readOnly = false): Promise<FolderBackend> {
  const refuse = (why: string, remedy: string, cause?: unknown): never => {
    throw new NonrootError({
      code: 'host.file',
      message: `cannot share ${path}: ${why}`,
      thing: path,
      value: path,
      remedy,
      cause,
    })
  }
  if (process.platform !== 'linux')
    refuse('shared folders need Linux (/proc/self/fd)', 'leave the device out on this host')
  const nodes = new Set<Node>()
  const share: Share = { readOnly, nodes, uid: process.geteuid?.() ?? 0, gid: process.getegid?.() ?? 0 }
  let root: Node | undefined
  try {
    // The folder that is named may itself be reached by links: it is ours to name.
    const handle = await open(path, O_PATH | constants.O_DIRECTORY)
    root = await Node.hold(share, `/proc/self/fd/${handle.fd}/.`, undefined, '')
    await handle.close()
  } catch (error) {
    refuse(error instanceof Error ? error.message : String(error), 'name a folder that exists', error)
  }
  return {
    readOnly,
    root: root!,
    async space(): Promise<FolderSpace> {
      const found = await statfs(root!.path)
      return {
        blockSize: found.bsize,
        blocks: found.blocks,
        freeBlocks: found.bfree,
        availableBlocks: found.bavail,
        files: found.files,
        freeFiles: found.ffree,
      }
    },
    async close() {
      for (const { handle } of nodes) await handle.close().catch(() => {})
      nodes.clear()
    },
  }
}
