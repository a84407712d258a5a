/** Folders: listing, creating, renaming, removing. */

import type { FolderAttributes, FolderEntryKind, FolderNode } from '@nonroot/contracts'
import { Message, ProtocolError, QID_SIZE, textBytes } from './messages.ts'
import type { Reader, Writer } from './messages.ts'
import { mostData, offsetOf, writeQid } from './session.ts'
import type { Handler, Session } from './session.ts'

const FORMAT_MASK = 0o170000
const FORMAT_FILE = 0o100000
/** Directory entry types. (readdir(3)) */
const ENTRY_TYPES: Readonly<Record<FolderEntryKind, number>> = { file: 8, folder: 4, link: 10, other: 0 }
const REMOVE_FOLDER = 0x200

async function readdir(request: Reader, reply: Writer, session: Session): Promise<void> {
  const fid = session.fids.get(request.u32())
  const offset = offsetOf(request.u64())
  const count = mostData(session, request.u32())
  if (!fid.opened || fid.node.kind !== 'folder') throw new ProtocolError('EBADF')
  if (offset === 0 || !fid.entries) session.fids.keepEntries(fid, await fid.node.list())
  const entries = fid.entries!
  const start = reply.length
  reply.u32(0)
  const own = await fid.node.attributes()
  // `.` and `..` come first; of what is outside the share, the guest learns nothing.
  for (let index = offset; index < entries.length + 2; index++) {
    const entry = index < 2 ? { name: '..'.slice(index === 0 ? 1 : 0), kind: 'folder' as const } : entries[index - 2]!
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

async function mkdir(request: Reader, reply: Writer, session: Session): Promise<void> {
  const { node } = session.fids.get(request.u32())
  const name = request.text()
  await told(reply, node.createFolder(name, request.u32()))
}

async function symlink(request: Reader, reply: Writer, session: Session): Promise<void> {
  const { node } = session.fids.get(request.u32())
  const name = request.text()
  await told(reply, node.createLink(name, request.text()))
}

async function mknod(request: Reader, reply: Writer, session: Session): Promise<void> {
  const { node } = session.fids.get(request.u32())
  const name = request.text()
  const mode = request.u32()
  const format = mode & FORMAT_MASK
  if (format !== 0 && format !== FORMAT_FILE) throw new ProtocolError('EPERM')
  const { node: made, file } = await node.createFile(name, { read: false, write: true, exclusive: true }, mode)
  await file.close()
  await told(reply, Promise.resolve(made))
}

async function link(request: Reader, _reply: Writer, session: Session): Promise<void> {
  const folder = session.fids.get(request.u32())
  const existing = session.fids.get(request.u32())
  await folder.node.addName(request.text(), existing.node)
}

async function renameat(request: Reader, _reply: Writer, session: Session): Promise<void> {
  const from = session.fids.get(request.u32())
  const name = request.text()
  const into = session.fids.get(request.u32())
  await from.node.rename(name, into.node, request.text())
}

async function unlinkat(request: Reader, _reply: Writer, session: Session): Promise<void> {
  const { node } = session.fids.get(request.u32())
  const name = request.text()
  await node.remove(name, request.u32() & REMOVE_FOLDER ? 'folder' : 'file')
}

const readlink: Handler = async (request, reply, { fids }) =>
  void reply.text(await fids.get(request.u32()).node.target())

export const FOLDER_HANDLERS: Readonly<Record<number, Handler>> = {
  [Message.readdir]: readdir,
  [Message.mkdir]: mkdir,
  [Message.symlink]: symlink,
  [Message.readlink]: readlink,
  [Message.mknod]: mknod,
  [Message.link]: link,
  [Message.renameat]: renameat,
  [Message.unlinkat]: unlinkat,
}
