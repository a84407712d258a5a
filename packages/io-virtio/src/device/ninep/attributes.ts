/** Attributes of files and of the whole share: Tstatfs, Tgetattr, Tsetattr. */

import { Message, ProtocolError } from './messages.ts'
import type { Reader, Writer } from './messages.ts'
import { writeQid } from './session.ts'
import type { Handler, Session } from './session.ts'

/** Tsetattr: which fields are meant. */
const Valid = { mode: 1, size: 8, accessed: 16, modified: 32, accessedSet: 128, modifiedSet: 256 } as const
/** P9_GETATTR_BASIC */
const BASIC = 0x7ffn
const FILE_SYSTEM_TYPE = 0x01021997
const LONGEST_NAME = 255
const NS = 1_000_000_000n

async function statfs(request: Reader, reply: Writer, session: Session): Promise<void> {
  session.fids.get(request.u32())
  const space = await session.folder.space()
  reply.u32(FILE_SYSTEM_TYPE).u32(space.blockSize).u64(space.blocks).u64(space.freeBlocks).u64(space.availableBlocks)
  reply.u64(space.files).u64(space.freeFiles).u64(0).u32(LONGEST_NAME)
}

async function getattr(request: Reader, reply: Writer, session: Session): Promise<void> {
  const found = await session.fids.get(request.u32()).node.attributes()
  reply.u64(BASIC)
  writeQid(reply, found)
  reply.u32(found.mode).u32(found.uid).u32(found.gid).u64(found.links).u64(0).u64(found.size)
  reply.u64(found.blockSize).u64(found.blocks)
  for (const ns of [found.accessedNs, found.modifiedNs, found.changedNs, 0n]) reply.u64(ns / NS).u64(ns % NS)
  // Generation and data version are not among what is valid.
  reply.u64(0).u64(0)
}

async function setattr(request: Reader, _reply: Writer, session: Session): Promise<void> {
  const { node } = session.fids.get(request.u32())
  const valid = request.u32()
  const mode = request.u32()
  // Owners: files that the guest makes belong to the user who runs this process.
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

export const ATTRIBUTE_HANDLERS: Readonly<Record<number, Handler>> = {
  [Message.statfs]: statfs,
  [Message.getattr]: getattr,
  [Message.setattr]: setattr,
}
