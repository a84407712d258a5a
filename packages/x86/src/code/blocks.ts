/**
 * The cache of decoded blocks: records in shared memory, found by host-physical address and mode key, and invalidated when their bytes are written.
 * Links may still point to invalidated blocks, whose records are all marked `stale`; the arena is only reused as a whole.
 */
import { hpa } from '@nonroot/contracts'
import { dropAllWriteTagsOfCode, dropWriteTags } from '../paging/tlb/tlb.ts'
import type { CodeTracker, Core } from '../state/core.ts'
import { JUMP, JUMP_CACHE, JUMP_ENTRIES, S } from '../state/layout.ts'
import { MODE } from '../state/mode.ts'
import { RECORD } from '../state/record.ts'
import { Arena } from './arena.ts'
import type { Block } from './block.ts'
import { BlockDecoder, type FetchNextPage } from './block-decoder.ts'
import { BlockTable } from './block-table.ts'
import { CodePages } from './code-pages.ts'
import type { CompiledRegion } from './compiled-region.ts'
import type { HandlerTable } from './handler-table.ts'
import { Heat } from './heat.ts'
import { MOST_REGIONS, NEVER_HOT } from './record.ts'
import { RecordWriter } from './record-writer.ts'
import { Regions } from './regions.ts'
import { sharedCodeOf, type SharedCode } from './shared-code.ts'
import { TrappedRows } from './trapped-rows.ts'

/** Space reserved for one block, or for a region's exit records and its page's target table. */
const ARENA_RESERVE = 1 << 16

/** Of the runs before a block is hot, the fraction that one needs whose region is remembered: it need not be built, only compiled (docs/adr/0032). */
export const SOONER = 1 / 16

/** What remembers regions. */
export interface KnownCode {
  isKnown(bytes: Uint8Array, block: Block): boolean
}

/** Owner of code that is made from guest memory elsewhere, by a binary translator. */
export interface CodeWatcher {
  /** Bytes of a watched page, all on one page, were or will be written. */
  written(host: number, length: number): void
  /** All blocks were dropped, and nothing is watched any more. */
  reset(): void
}

export class BlockCache implements CodeTracker {
  readonly #core: Core
  readonly #handlers: HandlerTable
  readonly #arena: Arena
  readonly #table: BlockTable
  readonly #pages: CodePages
  readonly #shared: SharedCode
  /** `SharedCode.pages` up to which writes to code are checked here. */
  #checked: number
  readonly #heat: Heat
  readonly #trapped: TrappedRows
  readonly #decoder: BlockDecoder
  readonly #regions: Regions
  readonly #known: KnownCode | undefined
  /** How often bytes of a page with code changed, by frame number. */
  readonly #generations: Uint32Array
  watcher: CodeWatcher | undefined
  /** Counts for statistics. */
  decoded = 0
  dropped = 0
  resets = 0
  /** Instructions that blocks had counted in advance and returned because a fault interrupted them. */
  givenBack = 0

  /** `arena`: bytes at its start for the records, all of it owned by this cache; `table`: BLOCK_TABLE_SIZE bytes. */
  constructor(core: Core, handlers: HandlerTable, arena: { start: number; size: number }, table: number, known?: KnownCode) {
    this.#core = core
    this.#known = known
    this.#handlers = handlers
    this.#arena = new Arena(arena)
    this.#table = new BlockTable(core.i32, table)
    const { codeHolders, memory } = core.memory
    this.#pages = new CodePages(core.u8.length >>> 12, codeHolders)
    this.#shared = sharedCodeOf(core.memory)
    this.#checked = this.#shared.pages
    this.#generations = new Uint32Array(core.u8.length >>> 12)
    this.#heat = new Heat(core)
    this.#trapped = new TrappedRows(core)
    const writer = new RecordWriter(core, handlers)
    this.#decoder = new BlockDecoder(core, handlers, writer, this.#trapped)
    this.#regions = new Regions({ core, handlers, arena: this.#arena, writer, pages: this.#pages, heat: this.#heat })
    core.set32(S.blockTable, table)
    core.set32(S.codeHolders, codeHolders.buffer === memory.buffer ? codeHolders.byteOffset : 0)
    this.#clearTable()
  }

  /** Of this processor, or of another one. */
  hasCode(host: number): boolean {
    return this.#pages.isHeld(host)
  }

  /** Before guest code runs: writes to pages that other processors have made code from since take the slow path. */
  enter(): void {
    if (this.#checked === this.#shared.pages) return
    this.#checked = this.#shared.pages
    dropAllWriteTagsOfCode(this.#core)
  }

  isCode(host: number, length: number): boolean {
    return this.#pages.isCode(host >>> 12, host & 0xfff, (host & 0xfff) + length)
  }

  find(host: number, mode: number): Block | undefined {
    return this.#pages.find(host, mode)
  }

  /** All blocks that may still run. */
  get live(): Iterable<Block> {
    return this.#pages.all()
  }

  /** Bytes at [host, host + length) were or will be written: invalidates the code decoded from them, on all processors. */
  invalidate(host: number, length: number): void {
    const last = host + length - 1
    const isElsewhere = this.#pages.isHeldElsewhere(host) || this.#pages.isHeldElsewhere(last) || last - host >= 0x1000
    // Which comes back to each of them.
    if (isElsewhere) this.#core.memory.noteWrite(hpa(host), length)
    else this.overwritten(host, length)
  }

  /** The same for the code of this processor alone. */
  overwritten(host: number, length: number): void {
    const last = (host + length - 1) >>> 12
    for (let page = host >>> 12; page <= last; page++) {
      if (!this.#pages.hasCode(page << 12)) continue
      this.#generations[page]!++
      let from = Math.max(0, host - page * 0x1000)
      let to = Math.min(0x1000, host + length - page * 0x1000)
      const overwritten = this.#pages.written(page, from, to)
      if (overwritten === 'none') continue
      if (overwritten === 'all') [from, to] = [0, 0x1000]
      this.#regions.dropIn(page, from, to)
      for (const block of this.#pages.blocksIn(page, from, to)) this.#drop(block)
      if (this.#pages.isWatched(page)) this.watcher?.written(page * 0x1000 + from, to - from)
    }
  }

  /** Tells `watcher` of writes to these bytes, which lie on one page, until `unwatch` of the page or `reset`. */
  watch(host: number, length: number): void {
    this.#claim(host)
    this.#pages.watch(host, length)
  }
  unwatch(host: number): void {
    this.#pages.unwatch(host)
  }

  /** Runs after which a block is reported hot; 0: never. */
  get hotness(): number {
    return this.#heat.hotness
  }
  set hotness(runs: number) {
    this.#heat.hotness = runs
  }
  /**
   * Instructions interpreted so far, derived from the heat of blocks, which counts their runs. Instructions returned by a block that was overwritten
   * while it ran are not subtracted.
   */
  get interpreted(): number {
    return this.#heat.instructions(this.live) - this.givenBack
  }

  /** Blocks that may still run, the regions in place of some of them, and bytes used in the arena. */
  get size(): number {
    return this.#pages.size
  }
  get regions(): number {
    return this.#regions.count
  }
  get arenaUsed(): number {
    return this.#arena.used
  }
  /** False: the next block to be decoded drops all others first. */
  get hasRoom(): boolean {
    return this.#arena.left >= ARENA_RESERVE && this.#regions.count < MOST_REGIONS
  }

  /** Drops everything. Only when no wasm code is running. */
  reset(): void {
    this.resets++
    for (const { first } of this.live) this.#heat.settle(first)
    this.#pages.clear()
    this.#regions.clear()
    this.#trapped.clear()
    this.#arena.clear()
    this.#clearTable()
    this.watcher?.reset()
  }

  /**
   * Decodes the block that starts at `host` and publishes it. With a `limit` it has at most so many instructions, is not found by `find` nor linked,
   * and must be returned by `release`. Undefined: a fetch fault was raised.
   */
  decode(host: number, mode: number, nextPage: FetchNextPage, limit = 0): Block | undefined {
    if (!this.hasRoom) this.reset()
    const block = this.#decoder.decode(this.#arena.next, host, mode, nextPage, limit)
    if (!block) return undefined
    this.#arena.next = block.end
    this.#heat.start(block.first, limit || mode & MODE.shadow ? NEVER_HOT : this.#initialHeat(block))
    this.decoded++
    if (!limit) this.#register(block)
    return block
  }

  #initialHeat(block: Block): number {
    const heat = this.#heat.initial(this.regions)
    return heat < NEVER_HOT && this.#known?.isKnown(this.#core.u8, block) ? Math.ceil(heat * SOONER) : heat
  }

  /** Enters a block where `dispatch` finds it. */
  publish(block: Block): void {
    if (block.mode & MODE.csLimited) return
    this.#table.add(block)
  }

  /** Frees the space of a private block, the last one decoded. */
  release(block: Block): void {
    this.#heat.settle(block.first)
    this.#arena.free(block.first, block.end)
  }

  /** Rows that the hooks' policy traps in a mode, by id. */
  trappedRows(mode: number): ReadonlySet<number> {
    return this.#trapped.of(mode)
  }

  /** The live block whose first record this is. */
  at(first: number): Block | undefined {
    const { i32 } = this.#core
    const block = this.find(i32[(first + RECORD.host) >>> 2]! >>> 0, i32[(first + RECORD.mode) >>> 2]!)
    return block?.first === first ? block : undefined
  }
  isCurrent(block: Block): boolean {
    return this.find(block.host, block.mode) === block
  }
  /** Changes with every write to the code of this page. */
  generation(host: number): number {
    return this.#generations[host >>> 12]!
  }
  isCompiled(block: Block): boolean {
    return this.#regions.has(block)
  }
  /** Offsets in its page at which compiled code has replaced a block of this mode. */
  entriesOn(host: number, mode: number): number[] {
    return this.#regions.entriesOn(host, mode)
  }
  /** Offsets in its page of blocks of this mode that are hot, or soon will be; those after `host` first, where the cases of a switch are. */
  busyOn(host: number, mode: number, hot: ReadonlySet<Block>): number[] {
    const distance = (offset: number): number => (offset - host) & 0xfff
    return this.#pages
      .blocksIn(host >>> 12, 0, 0x1000)
      .filter((block) => block.host >>> 12 === host >>> 12 && block.mode === mode && (hot.has(block) || this.#heat.isBusy(block)))
      .map((block) => block.host & 0xfff)
      .toSorted((a, b) => distance(a) - distance(b))
  }
  setHeat(block: Block, heat: number): void {
    this.#heat.settle(block.first)
    this.#heat.start(block.first, heat)
  }
  /** Installs compiled code in place of the block. `extents`: the bytes it was compiled from; `exits`: its exits; both as offsets in the page. */
  replace(block: Block, handler: number, region: CompiledRegion): void {
    this.#regions.install(block, handler, region)
  }

  #register(block: Block): void {
    this.#claim(block.host)
    if (block.nextPage >= 0) this.#claim(block.nextPage)
    this.#pages.add(block)
  }
  /** Writes to a page are checked once there is code of it. */
  #claim(host: number): void {
    if (this.#pages.hasCode(host)) return
    if (!this.#pages.isHeld(host)) {
      if (this.#checked === this.#shared.pages) this.#checked++
      this.#shared.pages++
    }
    dropWriteTags(this.#core, (host & -4096) >>> 0)
  }

  #drop(block: Block): void {
    this.dropped++
    this.#heat.settle(block.first)
    const stale = this.#handlers.special('stale')
    this.#handlers.flush()
    const { i32 } = this.#core
    for (let record = block.first; record < block.end; record += RECORD.size) i32[record >>> 2] = stale
    this.#table.remove(block)
    this.#regions.dropOf(block)
    this.#pages.remove(block)
  }

  /** The hash table and the jump cache. */
  #clearTable(): void {
    const jumps = this.#core.base + JUMP_CACHE
    this.#core.i32.fill(-1, jumps >>> 2, (jumps + JUMP_ENTRIES * JUMP.entry) >>> 2)
    this.#table.clear()
  }
}
