/** Physical Region Pages: where a command's data is in guest memory. (Base Specification, "Physical Region Page Entry and List") */

import type { DmaMemory, MemoryPiece } from '@nonroot/contracts'
import { PAGE, Status } from './facts.ts'

const ENTRY = 8

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
  for (let at = prp2; left > 0;) {
    const entry = memory.readU64(at)
    if (entry === undefined) return Status.dataTransfer
    const address = Number(entry)
    if (address % PAGE !== 0) return Status.invalidPrpOffset
    // The last entry of a page names the next page of the list if more than a page is still to come.
    if ((at + ENTRY) % PAGE === 0 && left > PAGE) {
      at = address
      continue
    }
    const size = Math.min(left, PAGE)
    pieces.push({ address, length: size })
    left -= size
    at += ENTRY
  }
  return pieces
}
