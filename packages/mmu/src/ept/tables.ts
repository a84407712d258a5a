/** @hot EPT tables in host frames: find, map, split, clear. Knows bits and frames, not why an entry changes. */

import { FRAME_SIZE, EPT_ENTRY, tableIndex } from '@nonroot/contracts'
import type { HostMemory, Hpa } from '@nonroot/contracts'
import { LARGE_FRAMES, LARGE_SIZE, ROOT_LEVEL } from './entry.ts'

const HIGH = 0x1_0000_0000

/**
 * Host memory ends at 4 GiB, so bits 63:32 of an entry are zero and one 32-bit store changes it at once, as another processor
 * that walks the tables needs it. Leaves that lead to the host's bus have them; they are written while the entry is not present.
 */
export class EptTables {
  readonly root: Hpa
  /** Frames that hold tables, the root among them. */
  frames = 1
  /** After `revoke`: a processor may have cached one of the leaves, because it was accessed. */
  mayBeCached = false
  /** Level of the entry that `leaf` found. */
  level = 0
  private readonly host: HostMemory
  private readonly words: Int32Array

  constructor(host: HostMemory, root: Hpa) {
    this.host = host
    this.words = host.words
    this.root = root
  }

  /** Word index of the present leaf that maps `address`, and its `level`; or -1. */
  leaf(address: number): number {
    const low = address >>> 0
    const high = Math.floor(address / HIGH)
    let word = this.root >>> 2
    for (let level = ROOT_LEVEL; ; level--) {
      word += tableIndex(low, high, level) * 2
      const entry = this.words[word]!
      if ((entry & EPT_ENTRY.rights) === 0) return -1
      if (level === 1 || (entry & EPT_ENTRY.large) !== 0) {
        this.level = level
        return word
      }
      word = (entry & ~0xfff) >>> 2
    }
  }

  /** Whether nothing at all, not even a table, stands where a 2 MiB leaf for `address` would. */
  isLargeFree(address: number): boolean {
    const low = address >>> 0
    const high = Math.floor(address / HIGH)
    let word = this.root >>> 2
    for (let level = ROOT_LEVEL; ; level--) {
      word += tableIndex(low, high, level) * 2
      const entry = this.words[word]!
      if ((entry & EPT_ENTRY.rights) === 0) return true
      if (level === 2) return false
      word = (entry & ~0xfff) >>> 2
    }
  }

  /**
   * Make the leaf of `level` (1 or 2) for `address` be `entry`, with `upper` as bits 63:32. Tables are made on the way, a large leaf in the way is split.
   * False: no frame is free for a table.
   */
  map(address: number, level: number, entry: number, upper = 0): boolean {
    const low = address >>> 0
    const high = Math.floor(address / HIGH)
    let word = this.root >>> 2
    for (let at = ROOT_LEVEL; ; at--) {
      word += tableIndex(low, high, at) * 2
      if (at === level) break
      let table = this.words[word]!
      if ((table & EPT_ENTRY.rights) === 0) {
        const frame = this.host.allocateFrame()
        if (frame === undefined) return false
        this.frames++
        this.words[word] = table = frame | EPT_ENTRY.rights
      } else if (at === 2 && (table & EPT_ENTRY.large) !== 0) {
        if (!this.split(word)) return false
        table = this.words[word]!
      }
      word = (table & ~0xfff) >>> 2
    }
    this.words[word + 1] = upper
    this.words[word] = entry
    return true
  }

  /** Turn the large leaf at `word` into a table of 512 leaves that say the same. False: no frame is free. */
  split(word: number): boolean {
    const frame = this.host.allocateFrame()
    if (frame === undefined) return false
    this.frames++
    const leaf = this.words[word]! & ~EPT_ENTRY.large
    const first = frame >>> 2
    for (let i = 0; i < LARGE_FRAMES; i++) this.words[first + i * 2] = leaf + i * FRAME_SIZE
    this.words[word] = frame | EPT_ENTRY.rights
    return true
  }

  /**
   * Over `[address, address + length)`, take write permission off (`protect`) or clear the leaves. A large leaf that the range cuts is
   * split to be protected, and dropped to be cleared: the next access brings back what was right. True: something changed.
   */
  revoke(address: number, length: number, protect: boolean): boolean {
    const end = address + length
    let changed = false
    this.mayBeCached = false
    for (let at = address - (address % FRAME_SIZE); at < end;) {
      const word = this.leaf(at)
      if (word < 0) {
        at += this.isLargeFree(at) ? LARGE_SIZE - (at % LARGE_SIZE) : FRAME_SIZE
        continue
      }
      const large = this.level === 2
      const entry = this.words[word]!
      if ((entry & EPT_ENTRY.accessed) !== 0) this.mayBeCached = true
      if (!protect) {
        this.words[word] = 0
        this.words[word + 1] = 0
        changed = true
      } else if ((entry & EPT_ENTRY.write) !== 0) {
        changed = true
        const whole = !large || (at % LARGE_SIZE === 0 && at + LARGE_SIZE <= end)
        if (whole) this.words[word] = entry & ~EPT_ENTRY.write
        else if (this.split(word)) continue
        else this.words[word] = 0
      }
      at += large ? LARGE_SIZE - (at % LARGE_SIZE) : FRAME_SIZE
    }
    return changed
  }

  /** Whether the page was accessed since the last call; undefined where nothing is mapped. A large leaf is split first, so that the answer is the page's own. */
  takeAccessed(address: number): boolean | undefined {
    let word = this.leaf(address)
    if (word < 0) return undefined
    if (this.level === 2 && this.split(word)) word = this.leaf(address)
    const entry = this.words[word]!
    this.words[word] = entry & ~EPT_ENTRY.accessed
    return (entry & EPT_ENTRY.accessed) !== 0
  }

  /** Forget everything but the root frame. */
  clear(): void {
    this.release(this.root, ROOT_LEVEL)
    this.words.fill(0, this.root >>> 2, (this.root + FRAME_SIZE) >>> 2)
  }

  dispose(): void {
    this.release(this.root, ROOT_LEVEL)
    this.host.freeFrame(this.root)
    this.frames = 0
  }

  /** Free the tables below `table`. */
  private release(table: number, level: number): void {
    if (level === 1) return
    for (let i = 0; i < 512; i++) {
      const entry = this.words[(table >>> 2) + i * 2]!
      if ((entry & EPT_ENTRY.rights) === 0 || (level === 2 && (entry & EPT_ENTRY.large) !== 0)) continue
      const below = ((entry & ~0xfff) >>> 0) as Hpa
      this.release(below, level - 1)
      this.host.freeFrame(below)
      this.frames--
    }
  }
}
