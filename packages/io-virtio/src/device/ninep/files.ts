/** Files: Tlopen, Tlcreate, Tread, Twrite, Tfsync, and locks. */

import type { FolderFile, FolderNode, FolderOpenFlags } from '@nonroot/contracts'
import type { Fid } from './fids.ts'
import { Message, ProtocolError } from './messages.ts'
import type { Reader, Writer } from './messages.ts'
import { mostData, offsetOf, writeQid } from './session.ts'
import type { Handler, Session } from './session.ts'

/** open(2) flags of Linux on x86-64, as the client sends them. */
const OpenFlag = { accessMode: 3, writeOnly: 1, readWrite: 2, exclusive: 0o200, truncate: 0o1000 } as const
const UNLOCKED = 2

const flagsOf = (flags: number): FolderOpenFlags => {
  const mode = flags & OpenFlag.accessMode
  return {
    read: mode !== OpenFlag.writeOnly,
    write: mode === OpenFlag.writeOnly || mode === OpenFlag.readWrite,
    truncate: (flags & OpenFlag.truncate) !== 0,
  }
}

/** The fid has the file, unless it was clunked while that was opened. */
async function own({ fids }: Session, number: number, fid: Fid, file: FolderFile, node?: FolderNode): Promise<void> {
  if (fids.is(number, fid) && !fid.file) {
    fid.file = file
    return
  }
  await file.close()
  await node?.release()
  throw new ProtocolError('EBADF')
}

async function open(request: Reader, reply: Writer, session: Session): Promise<void> {
  const number = request.u32()
  const fid = session.fids.get(number)
  const flags = request.u32()
  if (fid.opened) throw new ProtocolError('EBADF')
  fid.opened = true
  try {
    if (fid.node.kind === 'folder') {
      if (flags & OpenFlag.accessMode) throw new ProtocolError('EISDIR')
    } else await own(session, number, fid, await fid.node.open(flagsOf(flags)))
    writeQid(reply, await fid.node.attributes())
    reply.u32(0)
  } catch (error) {
    fid.opened = false
    throw error
  }
}

async function create(request: Reader, reply: Writer, session: Session): Promise<void> {
  const number = request.u32()
  const fid = session.fids.get(number)
  const name = request.text()
  const flags = request.u32()
  const mode = request.u32()
  if (fid.opened) throw new ProtocolError('EBADF')
  const { node, file } = await fid.node.createFile(
    name,
    { ...flagsOf(flags), exclusive: (flags & OpenFlag.exclusive) !== 0 },
    mode,
  )
  await own(session, number, fid, file, node)
  // The fid now is the new file, open.
  const before = fid.node
  fid.node = node
  fid.opened = true
  await before.release()
  writeQid(reply, await node.attributes())
  reply.u32(0)
}

async function read(request: Reader, reply: Writer, session: Session): Promise<void> {
  const { file } = session.fids.get(request.u32())
  const offset = offsetOf(request.u64())
  const count = mostData(session, request.u32())
  if (!file) throw new ProtocolError('EBADF')
  const at = reply.length
  reply.u32(0)
  const read = await file.read(offset, reply.space(count))
  reply.shorten(count - read)
  reply.setU32(at, read)
}

async function write(request: Reader, reply: Writer, session: Session): Promise<void> {
  const { file } = session.fids.get(request.u32())
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

async function fsync(request: Reader, _reply: Writer, session: Session): Promise<void> {
  await session.fids.get(request.u32()).file?.sync()
}

// Locks: one client, which keeps its own.

function lock(request: Reader, reply: Writer, session: Session): void {
  session.fids.get(request.u32())
  reply.u8(0)
}

function getlock(request: Reader, reply: Writer, session: Session): void {
  session.fids.get(request.u32())
  request.u8()
  const start = request.u64()
  const length = request.u64()
  const process = request.u32()
  reply.u8(UNLOCKED).u64(start).u64(length).u32(process).text(request.text())
}

export const FILE_HANDLERS: Readonly<Record<number, Handler>> = {
  [Message.open]: open,
  [Message.create]: create,
  [Message.read]: read,
  [Message.write]: write,
  [Message.fsync]: fsync,
  [Message.lock]: lock,
  [Message.getlock]: getlock,
}
