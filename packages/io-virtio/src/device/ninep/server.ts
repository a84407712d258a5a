/** A 9P2000.L server over a shared folder: requests in, replies out. Knows no queue. What a client says is hostile. */

import type {
  FolderAttributes,
  FolderBackend,
  FolderEntryKind,
  FolderFile,
  FolderNode,
  FolderOpenFlags,
} from '@nonroot/contracts'
import {
  ERRORS,
  HEADER_SIZE,
  IO_HEADER_SIZE,
  Message,
  MOST_WALK,
  NO_FID,
  ProtocolError,
  QID_SIZE,
  Reader,
  textBytes,
  Writer,
} from './messages.ts'

const VERSION = '9P2000.L'
export const MOST_MESSAGE = 512 * 1024
const LEAST_MESSAGE = 4096
/** Fids that a client may have. */
const MOST_FIDS = 8192

/** open(2) flags of Linux on x86-64, as the client sends them. */
const OpenFlag = { accessMode: 3, writeOnly: 1, readWrite: 2, exclusive: 0o200, truncate: 0o1000 } as const
const FORMAT_MASK = 0o170000
const FORMAT_FILE = 0o100000
/** Tsetattr: which fields are meant. */
const Valid = { mode: 1, size: 8, accessed: 16, modified: 32, accessedSet: 128, modifiedSet: 256 } as const
/** P9_GETATTR_BASIC */
const BASIC = 0x7ffn
const QidType = { file: 0, link: 0x02, folder: 0x80 } as const
/** Directory entry types. (readdir(3)) */
const ENTRY_TYPES: Readonly<Record<FolderEntryKind, number>> = { file: 8, folder: 4, link: 10, other: 0 }
const FILE_SYSTEM_TYPE = 0x01021997
const LONGEST_NAME = 255
const REMOVE_FOLDER = 0x200
const UNLOCKED = 2

/** What a client calls by a number. */
interface Fid {
  node: FolderNode
  file?: FolderFile
  /** Open folder: its entries as they were at the last reading from the start. */
  entries?: readonly { readonly name: string; readonly kind: FolderEntryKind }[]
  opened?: boolean
}

type Handler = (request: Reader, reply: Writer) => Promise<void>

export class NinePServer {
  readonly #folder: FolderBackend
  readonly #fids = new Map<number, Fid>()
  /** By tag: what a Tflush waits for. Its own answer comes after the one that it flushes. */
  readonly #running = new Map<number, Promise<unknown>>()
  readonly #unanswered = new Set<Promise<unknown>>()
  #mostMessage = MOST_MESSAGE
  readonly #handlers: Readonly<Partial<Record<number, Handler>>>

  constructor(folder: FolderBackend) {
    this.#folder = folder
    this.#handlers = {
      [Message.version]: (request, reply) => this.#version(request, reply),
      [Message.attach]: (request, reply) => this.#attach(request, reply),
      [Message.flush]: (request) => this.#flush(request),
      [Message.walk]: (request, reply) => this.#walk(request, reply),
      [Message.clunk]: (request) => this.#clunk(request.u32()),
      [Message.statfs]: (request, reply) => this.#statfs(request, reply),
      [Message.getattr]: (request, reply) => this.#getattr(request, reply),
      [Message.setattr]: (request) => this.#setattr(request),
      [Message.open]: (request, reply) => this.#open(request, reply),
      [Message.create]: (request, reply) => this.#create(request, reply),
      [Message.read]: (request, reply) => this.#read(request, reply),
      [Message.write]: (request, reply) => this.#write(request, reply),
      [Message.fsync]: (request) => this.#fsync(request),
      [Message.readdir]: (request, reply) => this.#readdir(request, reply),
      [Message.readlink]: async (request, reply) => void reply.text(await this.#fid(request.u32()).node.target()),
      [Message.mkdir]: (request, reply) => this.#mkdir(request, reply),
      [Message.symlink]: (request, reply) => this.#symlink(request, reply),
      [Message.mknod]: (request, reply) => this.#mknod(request, reply),
      [Message.link]: (request) => this.#link(request),
      [Message.renameat]: (request) => this.#renameat(request),
      [Message.unlinkat]: (request) => this.#unlinkat(request),
      [Message.lock]: async (request, reply) => this.#lock(request, reply),
      [Message.getlock]: async (request, reply) => this.#getlock(request, reply),
      [Message.remove]: async (request) => {
        // Whatever comes of it, the fid is gone.
        await this.#clunk(request.u32())
        throw new ProtocolError('EOPNOTSUPP')
      },
    }
  }

  /** Most bytes of a reply that this request can have. */
  get mostMessage(): number {
    return this.#mostMessage
  }

  /** Never rejects: what goes wrong is an Rlerror. */
  answer(request: Uint8Array): Promise<Uint8Array> {
    const answer = this.#answer(request)
    this.#unanswered.add(answer)
    void answer.then(() => this.#unanswered.delete(answer))
    if (request.length < HEADER_SIZE || request[4] === Message.flush) return answer
    const tag = request[5]! | (request[6]! << 8)
    this.#running.set(tag, answer)
    void answer.then(() => {
      if (this.#running.get(tag) === answer) this.#running.delete(tag)
    })
    return answer
  }

  async #answer(request: Uint8Array): Promise<Uint8Array> {
    const reader = new Reader(request, 0)
    let tag = 0xffff
    try {
      const size = reader.u32()
      const type = reader.u8()
      tag = reader.u16()
      if (size > request.length) throw new ProtocolError('EINVAL')
      const handler = this.#handlers[type]
      if (!handler) throw new ProtocolError('EOPNOTSUPP')
      const reply = new Writer()
      await handler(new Reader(request.subarray(0, size), HEADER_SIZE), reply)
      return reply.finish(type + 1, tag)
    } catch (error) {
      const code = (error as { code?: unknown }).code
      const number = (typeof code === 'string' ? ERRORS[code] : undefined) ?? ERRORS['EIO']!
      return new Writer().u32(number).finish(Message.error, tag)
    }
  }

  /** The client is gone: once what it asked for is done, nothing stays open. */
  async end(): Promise<void> {
    while (this.#unanswered.size > 0) await Promise.all(this.#unanswered)
    await this.clear()
  }

  async clear(): Promise<void> {
    const fids = [...this.#fids.values()]
    this.#fids.clear()
    for (const fid of fids) await close(fid)
  }

  // Fids

  #fid(number: number): Fid {
    const fid = this.#fids.get(number)
    if (!fid) throw new ProtocolError('EBADF')
    return fid
  }

  async #bind(number: number, fid: Fid): Promise<void> {
    const taken = this.#fids.has(number) || number === NO_FID
    if (taken || this.#fids.size >= MOST_FIDS) {
      await close(fid)
      throw new ProtocolError(taken ? 'EBADF' : 'ENFILE')
    }
    this.#fids.set(number, fid)
  }

  async #clunk(number: number): Promise<void> {
    const fid = this.#fid(number)
    this.#fids.delete(number)
    await close(fid)
  }

  // Session

  async #version(request: Reader, reply: Writer): Promise<void> {
    const most = request.u32()
    const version = request.text()
    await this.clear()
    this.#mostMessage = Math.max(LEAST_MESSAGE, Math.min(most, MOST_MESSAGE))
    reply.u32(this.#mostMessage).text(version === VERSION && most >= LEAST_MESSAGE ? VERSION : 'unknown')
  }

  async #attach(request: Reader, reply: Writer): Promise<void> {
    const number = request.u32()
    if (request.u32() !== NO_FID) throw new ProtocolError('EINVAL')
    await this.#bind(number, { node: this.#folder.root.retain() })
    writeQid(reply, await this.#folder.root.attributes())
  }

  async #flush(request: Reader): Promise<void> {
    await this.#running.get(request.u16())
  }

  async #walk(request: Reader, reply: Writer): Promise<void> {
    const from = this.#fid(request.u32())
    const number = request.u32()
    const count = request.u16()
    if (count > MOST_WALK || (from.opened && this.#fids.get(number) === from)) throw new ProtocolError('EINVAL')
    const names = Array.from({ length: count }, () => request.text())
    let node = from.node.retain()
    const qids: FolderAttributes[] = []
    try {
      for (const name of names) {
        const next = await node.find(name)
        await node.release()
        node = next
        qids.push(await node.attributes())
      }
    } catch (error) {
      await node.release()
      // The first one fails; of later ones, those that were found are told.
      if (qids.length === 0) throw error
      reply.u16(qids.length)
      for (const qid of qids) writeQid(reply, qid)
      return
    }
    if (this.#fids.get(number) === from) {
      // In place.
      const before = from.node
      from.node = node
      await before.release()
    } else await this.#bind(number, { node })
    reply.u16(qids.length)
    for (const qid of qids) writeQid(reply, qid)
  }

  // Attributes

  async #statfs(request: Reader, reply: Writer): Promise<void> {
    this.#fid(request.u32())
    const space = await this.#folder.space()
    reply.u32(FILE_SYSTEM_TYPE).u32(space.blockSize).u64(space.blocks).u64(space.freeBlocks).u64(space.availableBlocks)
    reply.u64(space.files).u64(space.freeFiles).u64(0).u32(LONGEST_NAME)
  }

  async #getattr(request: Reader, reply: Writer): Promise<void> {
    const found = await this.#fid(request.u32()).node.attributes()
    reply.u64(BASIC)
    writeQid(reply, found)
    reply.u32(found.mode).u32(found.uid).u32(found.gid).u64(found.links).u64(0).u64(found.size)
    reply.u64(found.blockSize).u64(found.blocks)
    for (const ns of [found.accessedNs, found.modifiedNs, found.changedNs, 0n]) reply.u64(ns / NS).u64(ns % NS)
    // Generation and data version are not among what is valid.
    reply.u64(0).u64(0)
  }

  async #setattr(request: Reader): Promise<void> {
    const { node } = this.#fid(request.u32())
    const valid = request.u32()
    const mode = request.u32()
    // Owners: whoever runs us owns all that the guest makes.
    request.u32()
    request.u32()
    const size = request.u64()
    const accessed = request.u64() * NS + request.u64()
    const modified = request.u64() * NS + request.u64()
    if (valid & Valid.size && size > BigInt(Number.MAX_SAFE_INTEGER)) throw new ProtocolError('EFBIG')
    await node.change({
      ...(valid & Valid.mode ? { mode } : {}),
      ...(valid & Valid.size ? { size: Number(size) } : {}),
      ...(valid & Valid.accessed ? { accessedNs: valid & Valid.accessedSet ? accessed : 'now' } : {}),
      ...(valid & Valid.modified ? { modifiedNs: valid & Valid.modifiedSet ? modified : 'now' } : {}),
    })
  }

  // Files

  async #open(request: Reader, reply: Writer): Promise<void> {
    const fid = this.#fid(request.u32())
    const flags = request.u32()
    if (fid.opened) throw new ProtocolError('EBADF')
    fid.opened = true
    try {
      if (fid.node.kind === 'folder') {
        if (flags & OpenFlag.accessMode) throw new ProtocolError('EISDIR')
      } else fid.file = await fid.node.open(flagsOf(flags))
      writeQid(reply, await fid.node.attributes())
      reply.u32(0)
    } catch (error) {
      fid.opened = false
      throw error
    }
  }

  async #create(request: Reader, reply: Writer): Promise<void> {
    const fid = this.#fid(request.u32())
    const name = request.text()
    const flags = request.u32()
    const mode = request.u32()
    if (fid.opened) throw new ProtocolError('EBADF')
    const { node, file } = await fid.node.createFile(
      name,
      { ...flagsOf(flags), exclusive: (flags & OpenFlag.exclusive) !== 0 },
      mode,
    )
    const before = fid.node
    // The fid now is the new file, open.
    fid.node = node
    fid.file = file
    fid.opened = true
    await before.release()
    writeQid(reply, await node.attributes())
    reply.u32(0)
  }

  #most(count: number): number {
    return Math.min(count, this.#mostMessage - IO_HEADER_SIZE)
  }

  async #read(request: Reader, reply: Writer): Promise<void> {
    const { file } = this.#fid(request.u32())
    const offset = offsetOf(request.u64())
    const count = this.#most(request.u32())
    if (!file) throw new ProtocolError('EBADF')
    const at = reply.length
    reply.u32(0)
    const read = await file.read(offset, reply.space(count))
    reply.shorten(count - read)
    reply.setU32(at, read)
  }

  async #write(request: Reader, reply: Writer): Promise<void> {
    const { file } = this.#fid(request.u32())
    const offset = offsetOf(request.u64())
    const data = request.bytes(request.u32())
    if (!file) throw new ProtocolError('EBADF')
    let done = 0
    while (done < data.length) {
      const written = await file.write(offset + done, data.subarray(done))
      if (written === 0) break
      done += written
    }
    reply.u32(done)
  }

  async #fsync(request: Reader): Promise<void> {
    await this.#fid(request.u32()).file?.sync()
  }

  // Folders

  async #readdir(request: Reader, reply: Writer): Promise<void> {
    const fid = this.#fid(request.u32())
    const offset = offsetOf(request.u64())
    const count = this.#most(request.u32())
    if (!fid.opened || fid.node.kind !== 'folder') throw new ProtocolError('EBADF')
    if (offset === 0 || !fid.entries) fid.entries = await fid.node.list()
    const start = reply.length
    reply.u32(0)
    const own = await fid.node.attributes()
    // `.` and `..` come first; of what is outside the share, the guest learns nothing.
    for (let index = offset; index < fid.entries.length + 2; index++) {
      const entry =
        index < 2 ? { name: '..'.slice(index === 0 ? 1 : 0), kind: 'folder' as const } : fid.entries[index - 2]!
      if (reply.length - start - 4 + QID_SIZE + 11 + textBytes(entry.name) > count) break
      const qid = index < 2 ? own : await attributesOf(fid.node, entry.name)
      // Gone since it was listed.
      if (!qid) continue
      writeQid(reply, qid)
      reply
        .u64(index + 1)
        .u8(ENTRY_TYPES[entry.kind])
        .text(entry.name)
    }
    reply.setU32(start, reply.length - start - 4)
  }

  async #mkdir(request: Reader, reply: Writer): Promise<void> {
    const { node } = this.#fid(request.u32())
    const name = request.text()
    await told(reply, node.createFolder(name, request.u32()))
  }

  async #symlink(request: Reader, reply: Writer): Promise<void> {
    const { node } = this.#fid(request.u32())
    const name = request.text()
    await told(reply, node.createLink(name, request.text()))
  }

  /** Plain files only: pipes, sockets and devices would be the host's. */
  async #mknod(request: Reader, reply: Writer): Promise<void> {
    const { node } = this.#fid(request.u32())
    const name = request.text()
    const mode = request.u32()
    const format = mode & FORMAT_MASK
    if (format !== 0 && format !== FORMAT_FILE) throw new ProtocolError('EPERM')
    const { node: made, file } = await node.createFile(name, { read: false, write: true, exclusive: true }, mode)
    await file.close()
    await told(reply, Promise.resolve(made))
  }

  async #link(request: Reader): Promise<void> {
    const folder = this.#fid(request.u32())
    const existing = this.#fid(request.u32())
    await folder.node.addName(request.text(), existing.node)
  }

  async #renameat(request: Reader): Promise<void> {
    const from = this.#fid(request.u32())
    const name = request.text()
    const into = this.#fid(request.u32())
    await from.node.rename(name, into.node, request.text())
  }

  async #unlinkat(request: Reader): Promise<void> {
    const { node } = this.#fid(request.u32())
    const name = request.text()
    await node.remove(name, request.u32() & REMOVE_FOLDER ? 'folder' : 'file')
  }

  // Locks: one client, which keeps its own.

  #lock(request: Reader, reply: Writer): void {
    this.#fid(request.u32())
    reply.u8(0)
  }

  #getlock(request: Reader, reply: Writer): void {
    this.#fid(request.u32())
    request.u8()
    const start = request.u64()
    const length = request.u64()
    const process = request.u32()
    reply.u8(UNLOCKED).u64(start).u64(length).u32(process).text(request.text())
  }
}

const NS = 1_000_000_000n

const flagsOf = (flags: number): FolderOpenFlags => {
  const mode = flags & OpenFlag.accessMode
  return {
    read: mode !== OpenFlag.writeOnly,
    write: mode === OpenFlag.writeOnly || mode === OpenFlag.readWrite,
    truncate: (flags & OpenFlag.truncate) !== 0,
  }
}

function offsetOf(offset: bigint): number {
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) throw new ProtocolError('EINVAL')
  return Number(offset)
}

function writeQid(reply: Writer, { kind, inode, modifiedNs }: FolderAttributes): void {
  const type = kind === 'folder' ? QidType.folder : kind === 'link' ? QidType.link : QidType.file
  reply
    .u8(type)
    .u32(Number((modifiedNs / 1_000_000n) & 0xffff_ffffn))
    .u64(inode)
}

async function attributesOf(folder: FolderNode, name: string): Promise<FolderAttributes | undefined> {
  try {
    const node = await folder.find(name)
    try {
      return await node.attributes()
    } finally {
      await node.release()
    }
  } catch {
    return undefined
  }
}

/** The qid of what was made, of which the client has no fid. */
async function told(reply: Writer, making: Promise<FolderNode>): Promise<void> {
  const made = await making
  try {
    writeQid(reply, await made.attributes())
  } finally {
    await made.release()
  }
}

async function close(fid: Fid): Promise<void> {
  await fid.file?.close().catch(() => {})
  await fid.node.release()
}
