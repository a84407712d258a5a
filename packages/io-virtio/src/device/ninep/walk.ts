/** How a client obtains fids (Tattach, Twalk) and releases them (Tclunk, Tremove). */

import type { FolderAttributes } from '@nonroot/contracts'
import { Message, MOST_WALK, NO_FID, ProtocolError } from './messages.ts'
import type { Reader, Writer } from './messages.ts'
import { writeQid } from './session.ts'
import type { Handler, Session } from './session.ts'

async function attach(request: Reader, reply: Writer, session: Session): Promise<void> {
  const number = request.u32()
  if (request.u32() !== NO_FID) throw new ProtocolError('EINVAL')
  await session.fids.bind(number, { node: session.folder.root.retain() })
  writeQid(reply, await session.folder.root.attributes())
}

async function walk(request: Reader, reply: Writer, session: Session): Promise<void> {
  const from = session.fids.get(request.u32())
  const number = request.u32()
  const count = request.u16()
  if (count > MOST_WALK || (from.opened && session.fids.is(number, from))) throw new ProtocolError('EINVAL')
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
    // The first one fails; of later ones, those that were found are reported.
    if (qids.length === 0) throw error
    reply.u16(qids.length)
    for (const qid of qids) writeQid(reply, qid)
    return
  }
  if (session.fids.is(number, from)) {
    // In place.
    const before = from.node
    from.node = node
    await before.release()
  } else await session.fids.bind(number, { node })
  reply.u16(qids.length)
  for (const qid of qids) writeQid(reply, qid)
}

const clunk: Handler = (request, _reply, { fids }) => fids.clunk(request.u32())

const remove: Handler = async (request, _reply, { fids }) => {
  // Whatever comes of it, the fid is gone.
  await fids.clunk(request.u32())
  throw new ProtocolError('EOPNOTSUPP')
}

export const WALK_HANDLERS: Readonly<Record<number, Handler>> = {
  [Message.attach]: attach,
  [Message.walk]: walk,
  [Message.clunk]: clunk,
  [Message.remove]: remove,
}
