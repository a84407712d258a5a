/** Code that earlier runs found hot, known by its bytes: it is compiled sooner. */
import type { HotCodeMemory } from '@nonroot/contracts'
import type { Block } from './block.ts'

/** Known blocks are compiled after this fraction of the runs that others need: what one program uses much, another may hardly use (docs/adr/0031). */
export const SOONER = 1 / 4
/** Bytes that stand for a block at least: the shortest blocks are alike. */
const WINDOW = 32

export class HotCode {
  readonly #memory: HotCodeMemory
  #known: Set<number> | undefined

  constructor(memory: HotCodeMemory) {
    this.#memory = memory
  }

  isKnown(bytes: Uint8Array, block: Block): boolean {
    return this.#all().has(hashOf(bytes, block))
  }

  /** Blocks were compiled. */
  add(bytes: Uint8Array, blocks: readonly Block[]): void {
    const known = this.#all()
    const fresh = blocks.map((block) => hashOf(bytes, block)).filter((hash) => !known.has(hash))
    for (const hash of fresh) known.add(hash)
    if (fresh.length) this.#memory.add(Uint32Array.from(fresh))
  }

  /** Read when the first block is decoded. */
  #all(): Set<number> {
    return (this.#known ??= new Set(this.#memory.known()))
  }
}

/** FNV-1a over the mode, the place in the page, and the bytes there. Two blocks of one hash are no harm. */
function hashOf(bytes: Uint8Array, { host, mode, length }: Block): number {
  const place = host & 0xfff
  const end = host + Math.min(Math.max(length, WINDOW), 0x1000 - place)
  let hash = Math.imul(Math.imul(0x811c_9dc5 ^ mode, 0x0100_0193) ^ place, 0x0100_0193)
  for (let at = host; at < end; at++) hash = Math.imul(hash ^ bytes[at]!, 0x0100_0193)
  return (hash ^ (hash >>> 15)) >>> 0
}
