/** Guest pages that code was translated from, and the blocks made of each: what must be dropped if the page changes or is mapped elsewhere. */

const PAGE = 4096

export interface TranslatedBlock {
  readonly page: CodePage
  /** Where its only instruction continues, if that crosses a page. */
  next: CodePage | undefined
  /** Bytes of the page: offsets. What is in `next` lies behind the end of the page. */
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
  readonly blocks: Set<TranslatedBlock>
}

/** Whether a block was made from some of the bytes [from, to) of one of its pages. */
export function usesBytes(block: TranslatedBlock, page: CodePage, from: number, to: number): boolean {
  const start = page === block.page ? 0 : PAGE
  return block.from < start + to && block.to > start + from
}

/** A linear address as a key: 48 bits. */
const keyOf = (low: number, high: number): number => (high & 0xffff) * 0x1_0000_0000 + (low >>> 0)
/** The largest page, which INVLPG of any address in it invalidates. */
const LARGEST = 1 << 30
const regionOf = (low: number, high: number): number => Math.floor(keyOf(low, high) / LARGEST)
const NONE: ReadonlySet<CodePage> = new Set()

function put(into: Map<number, Set<CodePage>>, key: number, page: CodePage): void {
  let set = into.get(key)
  if (!set) into.set(key, (set = new Set()))
  set.add(page)
}
/** True: it was the last. */
function take(from: Map<number, Set<CodePage>>, key: number, page: CodePage): boolean {
  const set = from.get(key)!
  set.delete(page)
  if (set.size) return false
  from.delete(key)
  return true
}

export class CodePages {
  readonly #byLinear = new Map<number, CodePage>()
  readonly #byHost = new Map<number, Set<CodePage>>()
  readonly #byRegion = new Map<number, Set<CodePage>>()
  readonly #local = new Set<CodePage>()

  get all(): Iterable<CodePage> {
    return this.#byLinear.values()
  }
  /** Those whose translation a write of CR3 drops. */
  get local(): Iterable<CodePage> {
    return this.#local
  }
  get size(): number {
    return this.#byLinear.size
  }
  find(low: number, high: number): CodePage | undefined {
    return this.#byLinear.get(keyOf(low & -4096, high))
  }
  at(host: number): Iterable<CodePage> {
    return this.#byHost.get(host) ?? NONE
  }
  /** What INVLPG of an address may concern. */
  near(low: number, high: number): Iterable<CodePage> {
    return this.#byRegion.get(regionOf(low, high)) ?? NONE
  }
  add(page: CodePage, isGlobal: boolean): void {
    this.#byLinear.set(keyOf(page.low, page.high), page)
    put(this.#byHost, page.host, page)
    put(this.#byRegion, regionOf(page.low, page.high), page)
    this.setGlobal(page, isGlobal)
  }
  setGlobal(page: CodePage, isGlobal: boolean): void {
    if (isGlobal) this.#local.delete(page)
    else this.#local.add(page)
  }
  /** True: no page has code of its frame any more. */
  remove(page: CodePage): boolean {
    this.#byLinear.delete(keyOf(page.low, page.high))
    this.#local.delete(page)
    take(this.#byRegion, regionOf(page.low, page.high), page)
    return take(this.#byHost, page.host, page)
  }
  clear(): void {
    this.#byLinear.clear()
    this.#byHost.clear()
    this.#byRegion.clear()
    this.#local.clear()
  }
}
