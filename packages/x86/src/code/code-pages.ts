/** Which decoded blocks have bytes on which page of the host. Independent of records. @hot: called for every block and every write near code. */
import { MODE_BITS } from '../state/mode.ts'
import type { Block } from './block.ts'

/** Granularity of a page's code map, in bytes. */
const GRANULE_BITS = 3

/**
 * After so many writes to a page's code without new decoding, the page is assumed to contain data. Until then a page is kept whose code has all been
 * overwritten: what generates code writes and runs it by turns, and a page that has code for the first time costs a search of the whole TLB.
 */
const REUSED = 32

interface Page {
  /** Blocks that begin here, by offset and mode. */
  readonly blocks: Map<number, Block>
  /** Blocks whose last instruction reaches into the page. */
  readonly reaching: Set<Block>
  /** For each granule, 1 if code was decoded from it; the code may have been invalidated since, but not that of all granules. */
  readonly granules: Uint8Array
  /** Writes to its code since code was last decoded from it; of a page without code, all writes. */
  hits: number
  /** A binary translator made code from it (`watch`). */
  watched: boolean
}

/** Within a page; a small integer, which maps hash fast. */
const key = (host: number, mode: number): number => ((host & 0xfff) << MODE_BITS) | mode
const isEmpty = ({ blocks, reaching, watched }: Page): boolean => blocks.size === 0 && reaching.size === 0 && !watched
/** Bytes of a block on the page that its last instruction reaches into. */
const reach = ({ host, length }: Block): number => (host & 0xfff) + length - 0x1000

export class CodePages {
  readonly #pages = new Map<number, Page>()
  readonly #hasCode: Uint8Array
  readonly #holders: Uint16Array
  size = 0

  /** `frames`: of the host. `holders`: how many processors have code of a frame, this one among them. */
  constructor(frames: number, holders: Uint16Array) {
    this.#hasCode = new Uint8Array(frames)
    this.#holders = holders
  }

  hasCode(host: number): boolean {
    return this.#hasCode[host >>> 12] !== 0
  }
  /** By this processor, or by another one. */
  isHeld(host: number): boolean {
    return this.#holders[host >>> 12] !== 0
  }
  isHeldElsewhere(host: number): boolean {
    return this.#holders[host >>> 12]! > this.#hasCode[host >>> 12]!
  }
  find(host: number, mode: number): Block | undefined {
    return this.#pages.get(host >>> 12)?.blocks.get(key(host, mode))
  }
  *all(): Iterable<Block> {
    for (const { blocks } of this.#pages.values()) yield* blocks.values()
  }

  add(block: Block): void {
    const { host, mode, length, nextPage } = block
    const page = this.#page(host >>> 12)
    page.blocks.set(key(host, mode), block)
    page.hits = 0
    this.size++
    this.mark(host, Math.min(length, 0x1000 - (host & 0xfff)))
    if (nextPage < 0) return
    this.#page(nextPage >>> 12).reaching.add(block)
    this.mark(nextPage, reach(block))
  }
  /** Records that code was made from these bytes of a page that has code. */
  mark(host: number, length: number): void {
    const { granules } = this.#pages.get(host >>> 12)!
    granules.fill(1, (host & 0xfff) >>> GRANULE_BITS, (((host & 0xfff) + length - 1) >>> GRANULE_BITS) + 1)
  }
  /** Treats bytes of a page as code until `unwatch`. */
  watch(host: number, length: number): void {
    const page = this.#page(host >>> 12)
    page.watched = true
    page.hits = 0
    this.mark(host, length)
  }
  unwatch(host: number): void {
    const page = this.#pages.get(host >>> 12)
    if (!page?.watched) return
    page.watched = false
    if (isEmpty(page)) this.#forget(host >>> 12)
  }
  isWatched(frame: number): boolean {
    return this.#pages.get(frame)?.watched === true
  }
  remove(block: Block): void {
    const { host, mode, nextPage } = block
    const page = this.#pages.get(host >>> 12)!
    page.blocks.delete(key(host, mode))
    this.size--
    this.#emptied(host >>> 12, page)
    const next = nextPage < 0 ? undefined : this.#pages.get(nextPage >>> 12)
    if (!next) return
    next.reaching.delete(block)
    this.#emptied(nextPage >>> 12, next)
  }
  clear(): void {
    for (const frame of this.#pages.keys()) Atomics.sub(this.#holders, frame, 1)
    this.#pages.clear()
    this.#hasCode.fill(0)
    this.size = 0
  }

  /** Whether code may have been made from bytes [from, to) of a frame. */
  isCode(frame: number, from: number, to: number): boolean {
    const granules = this.#pages.get(frame)?.granules
    if (!granules) return false
    const last = (to - 1) >>> GRANULE_BITS
    for (let n = from >>> GRANULE_BITS; n <= last; n++) if (granules[n]) return true
    return false
  }
  /** Bytes [from, to) of a frame with code were written. Gives whether code was made from them; `all`: the page seems to contain data now. */
  written(frame: number, from: number, to: number): 'none' | 'some' | 'all' {
    const page = this.#pages.get(frame)!
    // All of it: it is somebody else's page now.
    if (to - from === 0x1000) page.hits = REUSED
    if (isEmpty(page)) {
      if (++page.hits > REUSED) this.#forget(frame)
      return 'none'
    }
    if (!this.isCode(frame, from, to)) return 'none'
    return ++page.hits > REUSED ? 'all' : 'some'
  }
  /** Blocks with bytes in [from, to) of a frame. */
  blocksIn(frame: number, from: number, to: number): Block[] {
    const page = this.#pages.get(frame)
    if (!page) return []
    // Two addresses may have one frame: a block then reaches into the page that it begins on.
    const found = new Set<Block>()
    for (const block of page.blocks.values()) {
      const start = block.host & 0xfff
      if (start < to && start + block.length > from) found.add(block)
    }
    for (const block of page.reaching) if (reach(block) > from) found.add(block)
    return [...found]
  }

  #page(frame: number): Page {
    let page = this.#pages.get(frame)
    if (!page) {
      page = { blocks: new Map(), reaching: new Set(), granules: new Uint8Array(0x1000 >>> GRANULE_BITS), hits: 0, watched: false }
      this.#pages.set(frame, page)
      this.#hasCode[frame] = 1
      Atomics.add(this.#holders, frame, 1)
    }
    return page
  }
  #emptied(frame: number, page: Page): void {
    if (!isEmpty(page)) return
    if (page.hits > REUSED) this.#forget(frame)
    else page.granules.fill(0)
  }
  #forget(frame: number): void {
    this.#pages.delete(frame)
    this.#hasCode[frame] = 0
    Atomics.sub(this.#holders, frame, 1)
  }
}
