/** Guest pages that code was translated from, and the blocks made of each: what must be dropped if the page changes or is mapped elsewhere. */

export interface TranslatedBlock {
  readonly page: CodePage
  /** Bytes of the page: offsets. */
  readonly from: number
  to: number
  /** Bytes of the cache: offsets. */
  readonly start: number
  end: number
  readonly entries: readonly Entry[]
}

/** A guest address at which a block can be entered. */
export interface Entry {
  readonly low: number
  readonly high: number
  /** In the cache. */
  readonly offset: number
}

export interface CodePage {
  /** Linear address of the page. */
  readonly low: number
  readonly high: number
  /** Its frame in host memory: address. */
  readonly host: number
  /** A write of CR3 does not drop its translation. */
  isGlobal: boolean
  readonly blocks: Set<TranslatedBlock>
}

/** A linear address as a key: 48 bits. */
export const keyOf = (low: number, high: number): number => (high & 0xffff) * 0x1_0000_0000 + (low >>> 0)

export class CodePages {
  readonly #byLinear = new Map<number, CodePage>()
  readonly #byHost = new Map<number, Set<CodePage>>()

  get all(): Iterable<CodePage> {
    return this.#byLinear.values()
  }
  get size(): number {
    return this.#byLinear.size
  }
  find(low: number, high: number): CodePage | undefined {
    return this.#byLinear.get(keyOf(low & -4096, high))
  }
  at(host: number): Iterable<CodePage> {
    return this.#byHost.get(host) ?? []
  }
  add(page: CodePage): void {
    this.#byLinear.set(keyOf(page.low, page.high), page)
    let set = this.#byHost.get(page.host)
    if (!set) this.#byHost.set(page.host, (set = new Set()))
    set.add(page)
  }
  /** True: no page has code of its frame any more. */
  remove(page: CodePage): boolean {
    this.#byLinear.delete(keyOf(page.low, page.high))
    const set = this.#byHost.get(page.host)!
    set.delete(page)
    if (set.size) return false
    this.#byHost.delete(page.host)
    return true
  }
  clear(): void {
    this.#byLinear.clear()
    this.#byHost.clear()
  }
}
