/** Physical Region Pages: where a command's data is in guest memory. (Base Specification, "Physical Region Page Entry and List") */

import type { DmaMemory, MemoryPiece } from '@nonroot/contracts'
import { PAGE, Status } from './facts.ts'

const ENTRY = 8
const LIST = new Uint8Array(PAGE)
const WORDS = new DataView(LIST.buffer)

/** The pieces of a transfer of `length` bytes, or the status that refuses it. Whether they are RAM is seen when they are lent. */
export function prpPieces(memory: DmaMemory, prp1: number, prp2: number, length: number): MemoryPiece[] | number {
  if (prp1 % 4 !== 0) return Status.invalidPrpOffset
  const pieces: MemoryPiece[] = [{ address: prp1, length: Math.min(length, PAGE - (prp1 % PAGE)) }]
  let left = length - pieces[0]!.length
  if (left === 0) return pieces
  if (left <= PAGE) {
    if (prp2 % PAGE !== 0) return Status.invalidPrpOffset
    pieces.push({ address: prp2, length: left })
    return pieces
  }
  if (prp2 % ENTRY !== 0) return Status.invalidPrpOffset
  // What a page of the list has is read at once.
  for (let at = prp2; left > 0;) {
    const entries = Math.min((PAGE - (at % PAGE)) / ENTRY, Math.ceil(left / PAGE))
    if (!memory.readBytes(at, LIST.subarray(0, entries * ENTRY))) return Status.dataTransfer
    const isPage = (at + entries * ENTRY) % PAGE === 0
    for (let entry = 0; entry < entries; entry++) {
      const address = WORDS.getUint32(entry * ENTRY, true) + WORDS.getUint32(entry * ENTRY + 4, true) * 2 ** 32
      if (address % PAGE !== 0) return Status.invalidPrpOffset
      // The last entry of a page names the next page of the list if more than a page is still to come.
      if (isPage && entry === entries - 1 && left > PAGE) {
        at = address
        break
      }
      const size = Math.min(left, PAGE)
      pieces.push({ address, length: size })
      left -= size
    }
  }
  return pieces
}
