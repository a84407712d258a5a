/** A frame's content as a number. @hot */

import { FRAME_SIZE } from '@nonroot/contracts'

const WORDS = FRAME_SIZE / 4

/** The hash of a frame of zeros, and of no other that the scan has met: who gets it compares. */
export const ZERO_HASH = 0

/** 32 bits over the whole frame. `words`: host memory, `frame`: its address. */
export function hashOf(words: Int32Array, frame: number): number {
  const first = frame >>> 2
  let hash = 0
  for (let word = first; word < first + WORDS; word++) {
    hash = Math.imul(hash ^ words[word]!, 0x9e37_79b1)
    hash ^= hash >>> 15
  }
  return hash
}

export function isSame(words: Int32Array, one: number, other: number): boolean {
  const distance = (other - one) >> 2
  const first = one >>> 2
  for (let word = first; word < first + WORDS; word++) if (words[word] !== words[word + distance]) return false
  return true
}
