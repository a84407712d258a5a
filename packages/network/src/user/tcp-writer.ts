/** Writes headers and options of TCP segments to the guest. @hot */

import { Flag, Option, OWN_SCALE } from '../tcp/facts.ts'
import { TCP_HEADER } from '../tcp/segment.ts'
import type { FrameWriter } from '../wire/frame-writer.ts'
import type { TcpFlow } from './tcp-flow.ts'

export function writeTcpHeader(
  { view, payload }: FrameWriter,
  from: number,
  to: number,
  sequence: number,
  acknowledgement: number,
  flags: number,
  window: number,
  length: number,
): void {
  view.setUint16(payload, from)
  view.setUint16(payload + 2, to)
  view.setUint32(payload + 4, sequence)
  view.setUint32(payload + 8, acknowledgement)
  view.setUint16(payload + 12, ((length / 4) << 12) | flags)
  view.setUint16(payload + 14, window)
  view.setUint32(payload + 16, 0)
}

/** Options of a SYN, behind the header. Returns their length. */
export function writeSynOptions({ view, payload }: FrameWriter, { connection }: TcpFlow, flags: number): number {
  const at = payload + TCP_HEADER
  view.setUint32(at, (Option.mss << 24) | (4 << 16) | connection.mss)
  const answers = (flags & Flag.ack) !== 0
  const scale = !answers || connection.scaled
  const sack = !answers || connection.sender.sack
  view.setUint32(at + 4, scale ? (Option.nop << 24) | (Option.windowScale << 16) | (3 << 8) | OWN_SCALE : 0x0101_0101)
  view.setUint32(at + 8, sack ? (Option.nop << 24) | (Option.nop << 16) | (Option.sackPermitted << 8) | 2 : 0x0101_0101)
  return 12
}

const sackBlocks = new Uint32Array(8)

/** Selective acknowledgements, behind the header. Returns their length. */
export function writeSackOptions({ view, payload }: FrameWriter, { connection }: TcpFlow): number {
  if (!connection.sender.sack || connection.receiver.ranges.count === 0) return 0
  const count = connection.receiver.sackBlocks(sackBlocks, 4)
  const at = payload + TCP_HEADER
  view.setUint32(at, (Option.nop << 24) | (Option.nop << 16) | (Option.sack << 8) | (2 + 8 * count))
  for (let index = 0; index < 2 * count; index++) view.setUint32(at + 4 + 4 * index, sackBlocks[index]!)
  return 4 + 8 * count
}
