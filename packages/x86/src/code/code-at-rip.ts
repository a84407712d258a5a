/** Finds the code at RIP: translates the address, checks the limit of CS, and takes the block from the cache or decodes it. */
import { fetchPage } from '../paging/access/fetch.ts'
import type { Core } from '../state/core.ts'
import { S, SEGMENT } from '../state/layout.ts'
import { MODE } from '../state/mode.ts'
import { VECTOR } from '../state/register-bits.ts'
import type { Block } from './block.ts'
import type { BlockCache } from './blocks.ts'
import { PAGE_REACH } from './record.ts'

export class CodeAtRip {
  readonly #core: Core
  readonly #blocks: BlockCache
  /** Linear address of RIP, in halves. */
  #low = 0
  #high = 0
  /** Time at which the first block had been decoded and its handlers made, by `performance.now()`. Undefined before. */
  firstBlockAt: number | undefined

  constructor(core: Core, blocks: BlockCache) {
    this.#core = core
    this.#blocks = blocks
  }

  /** The block, decoded if necessary; undefined if fetching it raised a fault. With a `limit` it is a private one (`BlockCache.decode`). */
  block(limit: number): Block | undefined {
    const core = this.#core
    const blocks = this.#blocks
    if (this.isNearLimit(1)) {
      core.raise(VECTOR.GP)
      return undefined
    }
    this.#locate()
    const low = core.get32(S.rip)
    const offset = this.#low & 0xfff
    core.set32(S.ripPage, low - offset)
    core.set32(S.ripPage + 4, core.get32(S.rip + 4) - (low >>> 0 < offset ? 1 : 0))
    const host = fetchPage(core, this.#low, this.#high)
    if (host < 0) return undefined
    // If the limit of CS may be on the page, targets of its jumps are looked up each time.
    const mode = core.get32(S.mode) | (this.isNearLimit(PAGE_REACH - offset) ? MODE.csLimited : 0)
    if (!limit) {
      const known = blocks.find(host, mode)
      if (known) {
        blocks.publish(known)
        return known
      }
    }
    const block = blocks.decode(host, mode, () => this.#fetchNextPage(), limit)
    this.firstBlockAt ??= performance.now()
    if (block && !limit) blocks.publish(block)
    if (block && limit && this.isNearLimit(block.length)) {
      blocks.release(block)
      core.raise(VECTOR.GP)
      return undefined
    }
    return block
  }

  /** Drops the code at RIP if it no longer continues on the page at HPA `expected`. False: fetching raised a fault. */
  checkNextPage(expected: number): boolean {
    this.#locate()
    const next = this.#fetchNextPage()
    if (next < 0) return false
    const host = fetchPage(this.#core, this.#low, this.#high)
    if (next !== expected && host >= 0) this.#blocks.invalidate(host, 1)
    return true
  }

  /** Whether so many bytes of code from RIP exceed the limit of CS. (SDM Vol. 3A, "Limit Checking") */
  isNearLimit(bytes: number): boolean {
    const core = this.#core
    if ((core.get32(S.mode) & MODE.codeSize) === 2) return false
    const limit = core.segmentLimit(SEGMENT.cs)
    return limit !== 0xffff_ffff && (core.get32(S.rip) >>> 0) + bytes - 1 > limit
  }

  #locate(): void {
    const core = this.#core
    const long = (core.get32(S.mode) & MODE.codeSize) === 2
    const low = core.get32(S.rip)
    this.#low = long ? low : (low + core.get32(S.csBase)) | 0
    this.#high = long ? core.get32(S.rip + 4) : 0
  }

  /** HPA of the page after the located one, or -1 with the fault raised. */
  #fetchNextPage(): number {
    const low = ((this.#low | 0xfff) + 1) | 0
    const carry = low === 0 && (this.#core.get32(S.mode) & MODE.codeSize) === 2 ? 1 : 0
    return fetchPage(this.#core, low, (this.#high + carry) | 0)
  }
}
