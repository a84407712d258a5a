/** The state of one client: the share, its fids, its message size. */

import type { FolderAttributes, FolderBackend } from '@nonroot/contracts'
import type { Fids } from './fids.ts'
import { IO_HEADER_SIZE, ProtocolError } from './messages.ts'
import type { Reader, Writer } from './messages.ts'

export interface Session {
  readonly folder: FolderBackend
  readonly fids: Fids
  /** Most bytes of a message, as was agreed. */
  mostMessage: number
}

export type Handler = (request: Reader, reply: Writer, session: Session) => Promise<void> | void

/** Bytes of data that go into one message. */
export const mostData = ({ mostMessage }: Session, count: number): number =>
  Math.min(count, mostMessage - IO_HEADER_SIZE)

export function offsetOf(offset: bigint): number {
  if (offset > BigInt(Number.MAX_SAFE_INTEGER)) throw new ProtocolError('EINVAL')
  return Number(offset)
}

const QidType = { file: 0, link: 0x02, folder: 0x80 } as const

export function writeQid(reply: Writer, { kind, inode, modifiedNs }: FolderAttributes): void {
  const type = kind === 'folder' ? QidType.folder : kind === 'link' ? QidType.link : QidType.file
  reply
    .u8(type)
    .u32(Number((modifiedNs / 1_000_000n) & 0xffff_ffffn))
    .u64(inode)
}
