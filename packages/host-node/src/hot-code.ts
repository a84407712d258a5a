/** Hot code remembered in a file: hashes of 32 bits, one after the other, the newest last. */

import { appendFileSync, mkdirSync, readFileSync, renameSync, writeFileSync } from 'node:fs'
import { dirname } from 'node:path'
import type { HotCodeMemory } from '@nonroot/contracts'

/** A boot has some 2,500, and gcc 12,000 more. */
const MOST = 1 << 16

/**
 * Several processes may use one file: each appends what is new to it. A file that cannot be read or written, or is no list of hashes, is as good as
 * none. It may be deleted at any time.
 */
export function openHotCode(path: string): HotCodeMemory {
  return {
    known() {
      const bytes = attempt(() => readFileSync(path))
      if (!bytes) return new Uint32Array()
      const count = Math.floor(bytes.length / 4)
      const all = Uint32Array.from({ length: count }, (_, n) => bytes.readUInt32LE(4 * n))
      if (bytes.length % 4 === 0 && count <= MOST) return all
      // Too long, or one that was written in part: the newest half is kept, in a file of its own until it is complete.
      const kept = bytes.length % 4 === 0 ? all.subarray(count - MOST / 2) : new Uint32Array()
      attempt(() => {
        writeFileSync(`${path}.${process.pid}`, littleEndian(kept))
        renameSync(`${path}.${process.pid}`, path)
      })
      return kept
    },
    add(hashes) {
      attempt(() => {
        mkdirSync(dirname(path), { recursive: true })
        appendFileSync(path, littleEndian(hashes))
      })
    },
  }
}

function littleEndian(hashes: Uint32Array): Uint8Array {
  const bytes = Buffer.alloc(4 * hashes.length)
  for (const [n, hash] of hashes.entries()) bytes.writeUInt32LE(hash, 4 * n)
  return bytes
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action()
  } catch {
    return undefined
  }
}
