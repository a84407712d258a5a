/** Where the checksum of a frame's TCP or UDP is: Xen's frames say only that it is to be completed. @hot */

import type { FrameWork } from '@nonroot/contracts'

const TYPE = 12
const VLAN = 0x8100
const IPV4 = 0x0800
const IPV6 = 0x86dd
const IPV6_HEADER = 40
const TCP = 6
const UDP = 17

/** Sets `checksumStart` and `checksumOffset`. False: it is no TCP or UDP in one piece, directly over IP. */
export function findChecksum(frame: Uint8Array, work: FrameWork): boolean {
  let at = TYPE
  if (word(frame, at) === VLAN) at += 4
  const type = word(frame, at)
  at += 2
  let protocol = 0
  if (type === IPV4) {
    protocol = frame[at + 9] ?? 0
    // More fragments, or an offset.
    if (word(frame, at + 6) & 0x3fff) return false
    at += ((frame[at] ?? 0) & 15) * 4
  } else if (type === IPV6) {
    protocol = frame[at + 6] ?? 0
    at += IPV6_HEADER
  } else return false
  const offset = protocol === TCP ? 16 : protocol === UDP ? 6 : -1
  if (offset < 0 || at + offset + 2 > frame.length) return false
  work.checksumStart = at
  work.checksumOffset = offset
  return true
}

const word = (frame: Uint8Array, at: number): number => ((frame[at] ?? 0) << 8) | (frame[at + 1] ?? 0)
