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
      const bytes = attempt(() => readFileSync(path)) ?? new Uint8Array()
      const isWhole = bytes.length % 4 === 0
      const all = isWhole ? new Uint32Array(Uint8Array.from(bytes).buffer) : new Uint32Array()
      if (isWhole && all.length <= MOST) return all
      // Too long, or written in part: the newest half is kept, in a file of its own until it is complete.
      const kept = all.slice(-MOST / 2)
      attempt(() => {
        writeFileSync(`${path}.${process.pid}`, kept)
        renameSync(`${path}.${process.pid}`, path)
      })
      return kept
    },
    add(hashes) {
      attempt(() => {
        mkdirSync(dirname(path), { recursive: true })
        appendFileSync(path, new Uint8Array(hashes.buffer, hashes.byteOffset, hashes.byteLength))
      })
    },
  }
}

function attempt<T>(action: () => T): T | undefined {
  try {
    return action()
  } catch {
    return undefined
  }
}
