/** Page tables that a paravirtual kernel starts with: machine addresses, each table in a frame of the guest's own. (SDM Vol. 3A, "4-Level Paging") */
import { invariant, PAGE_ENTRY } from '@nonroot/contracts'
import type { ParavirtualMemory } from '@nonroot/contracts'

const ENTRIES = 512n
const LEVELS = 4
const READ_ONLY = BigInt(PAGE_ENTRY.present | PAGE_ENTRY.user | PAGE_ENTRY.accessed)
const WRITABLE = READ_ONLY | BigInt(PAGE_ENTRY.writable | PAGE_ENTRY.dirty)

const span = (level: number): bigint => 4096n * ENTRIES ** BigInt(level - 1)
const indexOf = (address: bigint, level: number): number => Number((address / span(level)) % ENTRIES)

/** Tables below the root for so many pages from an address. */
export function tablesFor(start: bigint, pages: number): number {
  if (pages === 0) return 0
  const end = start + BigInt(pages) * 4096n - 1n
  let count = 0
  for (let level = 2; level <= LEVELS; level++) count += Number(end / span(level) - start / span(level)) + 1
  return count
}

export class InitialTables {
  readonly #memory: ParavirtualMemory
  readonly #tables = new Map<number, BigUint64Array>()
  readonly #root: number
  #free: number[]

  /** Frames are used in order: the root, then tables of each level, the highest first. */
  constructor(memory: ParavirtualMemory, first: number, count: number) {
    this.#memory = memory
    this.#root = first
    this.#tables.set(first, new BigUint64Array(Number(ENTRIES)))
    this.#free = Array.from({ length: count - 1 }, (_, n) => first + 1 + n)
  }

  /** `frames` of the guest's from `first` on. */
  map(start: bigint, first: number, frames: number, isWritable: (frame: number) => boolean): void {
    // Level by level, so that those of a level lie together.
    for (let level = LEVELS - 1; level > 0; level--) {
      for (let n = 0n; n < BigInt(frames); n += ENTRIES ** BigInt(level)) this.#table(start + n * 4096n, level)
      if (frames > 0) this.#table(start + BigInt(frames - 1) * 4096n, level)
    }
    for (let n = 0; n < frames; n++) {
      const address = start + BigInt(n) * 4096n
      const flags = isWritable(first + n) ? WRITABLE : READ_ONLY
      this.#tables.get(this.#table(address, 1))![indexOf(address, 1)] = this.#entry(first + n, flags)
    }
  }

  /** Another mapping, whose tables are elsewhere. */
  mapAside(start: bigint, first: number, frames: number, tables: number, count: number): void {
    const before = this.#free
    this.#free = Array.from({ length: count }, (_, n) => tables + n)
    this.map(start, first, frames, () => true)
    this.#free = before
  }

  write(): void {
    for (const [frame, entries] of this.#tables) {
      const isDone = this.#memory.guestMemory.writeBytes(this.#memory.addressOf(frame), new Uint8Array(entries.buffer))
      invariant(isDone, 'the guest has RAM for its tables')
    }
  }

  #entry(frame: number, flags: bigint): bigint {
    return BigInt(this.#memory.machineFrames[frame]!) * 4096n + flags
  }

  /** Frame of the table of a level for an address, made if need be. */
  readonly #known = new Map<string, number>()
  #table(address: bigint, level: number): number {
    if (level === LEVELS) return this.#root
    const key = `${level}/${address / span(level + 1)}`
    let frame = this.#known.get(key)
    if (frame === undefined) {
      const above = this.#table(address, level + 1)
      frame = this.#free.shift()
      invariant(frame !== undefined, 'page tables were counted')
      this.#known.set(key, frame)
      this.#tables.set(frame, new BigUint64Array(Number(ENTRIES)))
      this.#tables.get(above)![indexOf(address, level + 1)] = this.#entry(frame, WRITABLE)
    }
    return frame
  }
}
