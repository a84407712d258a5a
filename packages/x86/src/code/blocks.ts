/**
 * The cache of decoded blocks: records in shared memory, found by host-physical address and mode key, and invalidated when their bytes are written.
 * Links may still point to invalidated blocks, whose records are all marked `stale`; the arena is only reused as a whole.
 */
import { BASE_RIP, createInstruction, type Instruction } from '../decode/instruction.ts'
import { decode, type DecodeMode, type DecodeResult } from '../decode/decoder.ts'
import { rows } from '../rows/index.ts'
import { canDropFlags, hidesFlags, isQuiet, mayWriteCode } from '../semantics/dead-flags.ts'
import { MODE } from '../state/mode.ts'
import { decodeModeOf, isUnavailable } from '../decode/decode-mode.ts'
import { dropWriteTags } from '../paging/tlb/tlb.ts'
import { gpr, JUMP, JUMP_CACHE, JUMP_ENTRIES, S, segment } from '../state/layout.ts'
import type { CodeTracker, Core } from '../state/core.ts'
import type { CompiledRegion } from './compiled-region.ts'
import type { Block } from './block.ts'
import { CodePages } from './code-pages.ts'
import type { HandlerTable, Special } from './handler-table.ts'
import { operandFields, registerOffset } from './operand-fields.ts'
import { HOT, MAX_INSTRUCTIONS, NEVER_HOT, NEVER_LINKED, NOT_LINKED, TARGETS, CROWD, MOST_REGIONS, escapeOf } from './record.ts'
import { BlockTable } from './block-table.ts'
import { RECORD } from '../state/record.ts'

/** None of PagingState's. */
const NO_GENERATION = -1

/** Part of its heat that a block has left that is taken for hot already. */
const BUSY = 3 / 4

const NO_ROWS: ReadonlySet<number> = new Set()

/** Space reserved for one block, or for a region's exit records and its page's target table. */
const ARENA_RESERVE = 1 << 16

/** A region installed in place of a block. */
interface Compiled {
  readonly block: Block
  readonly page: number
  /** Offsets in the page of the bytes that it was compiled from. */
  readonly extents: readonly { readonly start: number; readonly end: number }[]
  readonly handler: number
}

/** The record before an instruction in an interrupt shadow that does not continue with its successor (interpreter/handlers.ts). */
function inShadow({ row: { attributes } }: Instruction, asksFirst: boolean): 'underShadow' | 'alone' | undefined {
  if (asksFirst) return 'alone'
  if (attributes.flow === undefined) return undefined
  return attributes.flow === 'conditional' || attributes.flow === 'jump' ? 'underShadow' : 'alone'
}

/** Owner of code that is made from guest memory elsewhere, by a binary translator. */
export interface CodeWatcher {
  /** Bytes of a watched page, all on one page, were or will be written. */
  written(host: number, length: number): void
  /** All blocks were dropped, and nothing is watched any more. */
  reset(): void
}

/** Translates the next page for fetching: its HPA, or -1 with the fault raised. */
export type FetchNextPage = () => number

export class BlockCache implements CodeTracker {
  readonly #core: Core
  readonly #handlers: HandlerTable
  readonly #arena: number
  readonly #arenaEnd: number
  #free: number
  readonly #table: BlockTable
  readonly #pages: CodePages
  /** How often bytes of a page with code changed, by frame number. */
  readonly #generations: Uint32Array
  /** Compiled regions by frame number. */
  readonly #compiled = new Map<number, Set<Compiled>>()
  #regions = 0
  readonly #targets = new Map<string, number>()
  /** The one being decoded, and one that holds the last writer of flags. */
  readonly #scratch = [createInstruction(rows[0]!), createInstruction(rows[0]!)] as const
  #instruction: Instruction = this.#scratch[0]
  readonly #modes = new Map<number, DecodeMode>()
  #before: ReadonlySet<number> | undefined
  readonly #trappedRows = new Map<number, ReadonlySet<number>>()
  readonly #joined = new Uint8Array(32)
  /** The last writer of flags in the block being decoded, while no later instruction depends on them. */
  #candidate: { record: number; instruction: Instruction } | undefined
  /** Runs after which a block is reported hot; 0: never. */
  hotness = HOT
  watcher: CodeWatcher | undefined
  /** Counts for statistics. */
  decoded = 0
  dropped = 0
  resets = 0
  /** Instructions that blocks had counted in advance and returned because a fault interrupted them. */
  givenBack = 0
  /** Instructions of runs that no counter of heat includes any more. */
  #interpreted = 0

  /** `arena`: bytes at its start for the records, all of it owned by this cache; `table`: BLOCK_TABLE_SIZE bytes; `codeMap`: one for each frame of the host. */
  constructor(core: Core, handlers: HandlerTable, arena: { start: number; size: number }, table: number, codeMap: number) {
    this.#core = core
    this.#handlers = handlers
    this.#arena = this.#free = arena.start
    this.#arenaEnd = arena.start + arena.size
    this.#table = new BlockTable(core.i32, table)
    this.#pages = new CodePages(core.u8.subarray(codeMap, codeMap + (core.u8.length >>> 12)).fill(0), core.memory.codeHolders)
    this.#generations = new Uint32Array(core.u8.length >>> 12)
    core.set32(S.blockTable, table)
    core.set32(S.codeMap, codeMap)
    this.#clearTable()
  }

  hasCode(host: number): boolean {
    return this.#pages.hasCode(host)
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

  /** Bytes at [host, host + length) were or will be written: invalidates the code decoded from them. */
  invalidate(host: number, length: number): void {
    const last = (host + length - 1) >>> 12
    for (let page = host >>> 12; page <= last; page++) {
      if (!this.#pages.hasCode(page << 12)) continue
      this.#generations[page]!++
      let from = Math.max(0, host - page * 0x1000)
      let to = Math.min(0x1000, host + length - page * 0x1000)
      if (!this.#pages.isCode(page, from, to)) continue
      if (this.#pages.hit(page)) [from, to] = [0, 0x1000]
      for (const compiled of this.#compiled.get(page) ?? []) {
        if (compiled.extents.some(({ start, end }) => start < to && end > from)) this.#dropCompiled(compiled)
      }
      for (const block of this.#pages.blocksIn(page, from, to)) this.#drop(block)
      if (this.#pages.isWatched(page)) this.watcher?.written(page * 0x1000 + from, to - from)
    }
  }

  /** Tells `watcher` of writes to these bytes, which lie on one page, until `unwatch` of the page or `reset`. */
  watch(host: number, length: number): void {
    const had = this.#pages.hasCode(host)
    this.#pages.watch(host, length)
    if (!had) dropWriteTags(this.#core, (host & -4096) >>> 0)
  }
  unwatch(host: number): void {
    this.#pages.unwatch(host)
  }

  /**
   * Instructions interpreted so far, derived from the heat of blocks, which counts their runs. Instructions returned by a block that was overwritten
   * while it ran are not subtracted.
   */
  get interpreted(): number {
    let sum = this.#interpreted - this.givenBack
    for (const { first } of this.#pages.all()) sum += this.#ran(first)
    return sum
  }
  /** Instructions of a block's runs since its heat was set. The run in which it was found hot has not begun. */
  #ran(first: number): number {
    const { i32 } = this.#core
    const heat = i32[(first + RECORD.heat) >>> 2]!
    const runs = i32[(first + RECORD.heatAtStart) >>> 2]! - heat - (heat === 0 ? 1 : 0)
    return runs * i32[(first + RECORD.immediate) >>> 2]!
  }
  /** Runs before a new block is worth compiling: the more regions there are, the less they remain in the processor's caches. */
  #heat(): number {
    return this.hotness ? this.hotness * (1 + Math.floor(this.#regions / CROWD)) : NEVER_HOT
  }
  #startHeat(first: number, heat: number): void {
    const { i32 } = this.#core
    i32[(first + RECORD.heat) >>> 2] = i32[(first + RECORD.heatAtStart) >>> 2] = heat
  }

  /** Blocks that may still run, the regions in place of some of them, and bytes used in the arena. */
  get size(): number {
    return this.#pages.size
  }
  get regions(): number {
    return this.#regions
  }
  get arenaUsed(): number {
    return this.#free - this.#arena
  }
  /** False: the next block to be decoded drops all others first. */
  get hasRoom(): boolean {
    return this.#arenaEnd - this.#free >= ARENA_RESERVE && this.#regions < MOST_REGIONS
  }

  /** Drops everything. Only when no wasm code is running. */
  reset(): void {
    this.resets++
    for (const { first } of this.#pages.all()) this.#interpreted += this.#ran(first)
    this.#pages.clear()
    for (const regions of this.#compiled.values()) for (const { handler } of regions) this.#handlers.release(handler)
    this.#compiled.clear()
    this.#regions = 0
    this.#targets.clear()
    this.#trappedRows.clear()
    this.#free = this.#arena
    this.#clearTable()
    this.watcher?.reset()
  }

  /**
   * Decodes the block that starts at `host` and publishes it. With a `limit` it has at most so many instructions, is not found by `find` nor linked,
   * and must be returned by `release`. Undefined: a fetch fault was raised.
   */
  decode(host: number, mode: number, nextPage: FetchNextPage, limit = 0): Block | undefined {
    if (!this.hasRoom) this.reset()
    const { u8, i32 } = this.#core
    const decodeMode = this.#mode(mode)
    const first = this.#free
    const page = (host & ~0xfff) >>> 0
    const shadow = (mode & MODE.shadow) !== 0
    const most = shadow ? 1 : limit || MAX_INSTRUCTIONS
    let record = first + RECORD.size
    let ip = host & 0xfff
    let count = 0
    let crossing = -1
    let open = true // the last instruction does not end the block
    this.#candidate = undefined
    while (count < most && open && ip < 0x1000) {
      const instruction = (this.#instruction = this.#unused())
      let result = decode(u8, page + ip, 0x1000 - ip, decodeMode, instruction)
      if (result === 'truncated') {
        if (count) break
        // The first instruction crosses pages: decode it from the bytes of both.
        const next = nextPage()
        if (next < 0) return undefined
        crossing = next
        const here = 0x1000 - ip
        this.#joined.set(u8.subarray(page + ip, page + 0x1000))
        this.#joined.set(u8.subarray(next, next + 16), here)
        result = decode(this.#joined, 0, here + 15, decodeMode, instruction)
        this.#special(record, 'checkNextPage', ip)
        i32[(record + RECORD.immediate) >>> 2] = next
        record += RECORD.size
      }
      const asksFirst = result === 'ok' && this.trappedRows(mode).has(instruction.row.id)
      const special = shadow && result === 'ok' ? inShadow(instruction, asksFirst) : undefined
      if (special) {
        this.#special(record, special, ip)
        record += RECORD.size
      }
      if (asksFirst) {
        this.#trapped(record, instruction, ip)
        record += RECORD.size
      }
      open = this.#append(record, result, mode, ip, limit)
      record += RECORD.size
      count++
      ip += instruction.length
      if (asksFirst) break
    }
    if (open) {
      if (shadow) {
        this.#special(record, 'endShadow', ip)
        record += RECORD.size
      }
      this.#special(record, 'goOn', ip)
      this.#immediate(record, ip)
      i32[(record + RECORD.link) >>> 2] = this.#linkFor(ip, mode, limit)
      record += RECORD.size
    }
    this.#special(first, 'enterBlock', host & 0xfff)
    i32[(first + RECORD.immediate) >>> 2] = count
    i32[(first + RECORD.mode) >>> 2] = mode
    i32[(first + RECORD.host) >>> 2] = host
    this.#startHeat(first, limit || shadow ? NEVER_HOT : this.#heat())
    this.#count(first, record, count)
    this.#handlers.flush()
    this.#free = record
    this.decoded++
    const block: Block = { host, mode, first, end: record, length: ip - (host & 0xfff), nextPage: crossing }
    if (limit) return block
    this.#register(block)
    return block
  }

  /** Enters a block where `dispatch` finds it. */
  publish(block: Block): void {
    if (block.mode & MODE.csLimited) return
    this.#table.add(block)
  }

  /** Frees the space of a private block, the last one decoded. */
  release(block: Block): void {
    this.#interpreted += this.#ran(block.first)
    if (this.#free === block.end) this.#free = block.first
  }

  // --- compiled regions ---

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
  isCompiled({ host, first }: Block): boolean {
    return [...(this.#compiled.get(host >>> 12) ?? [])].some(({ block }) => block.first === first)
  }
  /** Offsets in its page at which compiled code has replaced a block of this mode. */
  entriesOn(host: number, mode: number): number[] {
    const offsets: number[] = []
    for (const { block } of this.#compiled.get(host >>> 12) ?? []) if (block.mode === mode) offsets.push(block.host & 0xfff)
    return offsets
  }
  /** Offsets in its page of blocks of this mode that are hot, or soon will be; those after `host` first, where the cases of a switch are. */
  busyOn(host: number, mode: number, hot: ReadonlySet<Block>): number[] {
    const { i32 } = this.#core
    const isBusy = (block: Block): boolean =>
      hot.has(block) || i32[(block.first + RECORD.heat) >>> 2]! < i32[(block.first + RECORD.heatAtStart) >>> 2]! * BUSY
    const distance = (offset: number): number => (offset - host) & 0xfff
    return this.#pages
      .blocksIn(host >>> 12, 0, 0x1000)
      .filter((block) => block.host >>> 12 === host >>> 12 && block.mode === mode && isBusy(block))
      .map((block) => block.host & 0xfff)
      .toSorted((a, b) => distance(a) - distance(b))
  }
  setHeat(block: Block, heat: number): void {
    this.#interpreted += this.#ran(block.first)
    this.#startHeat(block.first, heat)
  }
  /** Installs compiled code in place of the block. `extents`: the bytes it was compiled from; `exits`: its exits; both as offsets in the page. */
  replace(block: Block, handler: number, { extents, exits, usesTargets }: CompiledRegion): void {
    const page = block.host >>> 12
    const word = block.first >>> 2
    const { i32 } = this.#core
    i32[word + (RECORD.exits >> 2)] = this.#exits(exits, block.mode)
    if (usesTargets) i32[word + (RECORD.targets >> 2)] = this.#targetsOf(page, block.mode)
    i32[word] = handler
    let regions = this.#compiled.get(page)
    if (!regions) this.#compiled.set(page, (regions = new Set()))
    regions.add({ block, page, extents, handler })
    this.#regions++
    for (const { start, end } of extents) this.#pages.mark(page * 0x1000 + start, end - start)
  }
  /** Writes consecutive records that continue at offsets of a page: the exit records of compiled code. */
  #exits(offsets: readonly number[], mode: number): number {
    const first = this.#free
    for (const ip of offsets) {
      const record = this.#free
      this.#free += RECORD.size
      this.#special(record, 'goOn', ip)
      this.#immediate(record, ip)
      this.#core.u8[record + RECORD.remaining] = 0
      this.#core.i32[(record + RECORD.link) >>> 2] = this.#linkFor(ip, mode, 0)
    }
    this.#handlers.flush()
    return first
  }
  /** The table in which compiled code on a page looks up targets of indirect jumps on that page. */
  #targetsOf(page: number, mode: number): number {
    const at = `${page}/${mode}`
    let table = this.#targets.get(at)
    if (table === undefined) {
      table = this.#free
      this.#free += TARGETS * 8
      this.#core.i32.fill(-1, table >>> 2, (table >>> 2) + TARGETS * 2)
      this.#targets.set(at, table)
    }
    return table
  }
  #dropCompiled(compiled: Compiled): void {
    const { block, page, handler } = compiled
    const regions = this.#compiled.get(page)!
    regions.delete(compiled)
    this.#regions--
    if (!regions.size) this.#compiled.delete(page)
    if (this.isCurrent(block)) {
      this.#core.i32[block.first >>> 2] = this.#handlers.special('enterBlock')
      this.setHeat(block, this.#heat())
    }
    this.#handlers.release(handler)
  }

  // --- records ---

  /** The one of the two that does not hold the candidate. */
  #unused(): Instruction {
    const [first, second] = this.#scratch
    return this.#candidate?.instruction === first ? second : first
  }

  /** The record that calls the hooks before an instruction. They may read any flag and continue elsewhere, so the block ends here. */
  #trapped(record: number, { row, length }: Instruction, ip: number): void {
    this.#candidate = undefined
    this.#special(record, 'trapped', ip)
    this.#position(record, ip, length)
    this.#core.i32[(record + RECORD.immediate) >>> 2] = row.id
  }

  /** Writes one record; true if the block can continue after it. */
  #append(record: number, result: DecodeResult, mode: number, ip: number, limit: number): boolean {
    const instruction = this.#instruction
    if (result !== 'ok') {
      this.#special(record, result === 'tooLong' ? 'generalProtection' : 'undefinedOpcode', ip)
      return false
    }
    const { row } = instruction
    const core = this.#core
    this.#position(record, ip, instruction.length)
    if (row.attributes.enabledBy && core.hooks?.isUndefined?.(row.attributes.enabledBy)) {
      core.i32[record >>> 2] = this.#handlers.special('undefinedOpcode')
      return false
    }
    if (isUnavailable(row, mode)) {
      core.i32[record >>> 2] = this.#handlers.special('fpuUnavailable')
      return false
    }
    if (row.attributes.cpl === 0 && mode & MODE.user) {
      core.i32[record >>> 2] = this.#handlers.special(row.attributes.cplFault === 'ud' ? 'undefinedOpcode' : 'generalProtection')
      return false
    }
    core.i32[record >>> 2] = this.#handlers.of(instruction, mode, false)
    this.#findDeadFlags(record, instruction, mode)
    this.#operands(record, instruction, mode, ip, limit)
    return row.attributes.flow === undefined
  }

  /**
   * Flags that the next writer overwrites, with nothing in between that reads them or could show them (by a fault or an exit), need not be computed:
   * the earlier instruction gets the handler that omits them.
   */
  #findDeadFlags(record: number, instruction: Instruction, mode: number): void {
    const { reads, writes } = instruction.row.flags
    const quiet = isQuiet(instruction)
    const candidate = this.#candidate
    if (candidate && quiet && hidesFlags(instruction, candidate.instruction)) {
      this.#core.i32[candidate.record >>> 2] = this.#handlers.of(candidate.instruction, mode, true)
    }
    if (writes) this.#candidate = canDropFlags(instruction) && !mayWriteCode(instruction) ? { record, instruction } : undefined
    else if (!quiet || reads) this.#candidate = undefined
  }

  #operands(record: number, i: Instruction, mode: number, ip: number, limit: number): void {
    const { i32 } = this.#core
    const word = record >>> 2
    const { row } = i
    const fields = operandFields(row)
    i32[word + 2] = registerOffset(fields.reg, i.reg, i)
    if (i.isMemory) {
      i32[word + 3] = i.base >= 0 && i.base !== BASE_RIP ? gpr(i.base) : S.zero
      if (i.base === BASE_RIP) this.#wide(word + 4, ip + i.length + i.displacement)
      else {
        i32[word + 4] = i.index >= 0 ? gpr(i.index) : S.zero
        i32[word + 5] = i.scale
      }
    } else i32[word + 3] = registerOffset(fields.rm, i.rm, i)
    i32[word + 6] = segment(i.segment)
    i32[word + 7] = i.displacement
    i32[word + 8] = i.immediate
    i32[word + 9] = i.immediateHigh
    i32[word + 10] = NEVER_LINKED
    i32[word + 11] = i.vex ? gpr(i.vvvv) : row.attributes.unit === 'x87' ? escapeOf(i) : i.immediate2
    if (fields.hasOffset) {
      i32[word + 8] = i.displacement
      i32[word + 9] = i.displacementHigh
    }
    const { flow } = row.attributes
    if (flow === 'conditional' || flow === 'jump' || flow === 'call') {
      i32[word + (RECORD.farGeneration >> 2)] = NO_GENERATION
      const next = ip + i.length
      const target = next + i.immediate
      this.#immediate(record, target)
      i32[word + 10] = this.#linkFor(target, mode, limit)
      if (flow === 'conditional') i32[word + 11] = this.#linkFor(next, mode, limit)
    }
  }

  /** A target on the same page may be linked: the page's mapping was checked when the page was entered. */
  #linkFor(ip: number, mode: number, limit: number): number {
    return ip >= 0 && ip < 0x1000 && !(mode & MODE.csLimited) && !limit ? NOT_LINKED : NEVER_LINKED
  }

  #special(record: number, name: Special, ip: number): void {
    this.#core.i32[(record + RECORD.farGeneration) >>> 2] = NO_GENERATION
    this.#core.i32[record >>> 2] = this.#handlers.special(name)
    this.#position(record, ip, 0)
  }
  #position(record: number, ip: number, length: number): void {
    const { view, u8 } = this.#core
    view.setUint16(record + RECORD.ip, ip, true)
    u8[record + RECORD.length] = length
  }
  #immediate(record: number, value: number): void {
    this.#wide((record + RECORD.immediate) >>> 2, value)
  }
  #wide(word: number, value: number): void {
    const { i32 } = this.#core
    i32[word] = value | 0
    i32[word + 1] = Math.floor(value / 0x1_0000_0000)
  }

  /** Handlers of records that precede an instruction's own. */
  #specialsBefore(): ReadonlySet<number> {
    return (this.#before ??= new Set((['checkNextPage', 'trapped', 'underShadow', 'alone'] as const).map((name) => this.#handlers.special(name))))
  }

  /** Fills `remaining`: records after the entry, counted by instructions. A record that precedes an instruction has the same value. */
  #count(first: number, end: number, count: number): void {
    const { u8, i32 } = this.#core
    u8[first + RECORD.remaining] = 0 // it takes them off when it is past
    let left = count
    const before = this.#specialsBefore()
    for (let record = first + RECORD.size; record < end; record += RECORD.size) {
      u8[record + RECORD.remaining] = left
      if (left && !before.has(i32[record >>> 2]!)) left--
    }
  }

  // --- bookkeeping ---

  /** Rows that the hooks' policy traps in a mode, by id. */
  trappedRows(mode: number): ReadonlySet<number> {
    const { hooks } = this.#core
    if (!hooks?.policy) return NO_ROWS
    let trapped = this.#trappedRows.get(mode)
    if (!trapped) {
      trapped = new Set(rows.filter((row) => hooks.policy!(row, mode) === 'trap').map(({ id }) => id))
      this.#trappedRows.set(mode, trapped)
    }
    return trapped
  }

  #mode(mode: number): DecodeMode {
    let known = this.#modes.get(mode)
    if (!known) this.#modes.set(mode, (known = decodeModeOf(mode)))
    return known
  }

  #register(block: Block): void {
    for (const host of block.nextPage >= 0 ? [block.host, block.nextPage] : [block.host]) {
      if (!this.#pages.hasCode(host)) dropWriteTags(this.#core, (host & ~0xfff) >>> 0)
    }
    this.#pages.add(block)
  }

  #drop(block: Block): void {
    this.dropped++
    this.#interpreted += this.#ran(block.first)
    const stale = this.#handlers.special('stale')
    this.#handlers.flush()
    const { i32 } = this.#core
    for (let record = block.first; record < block.end; record += RECORD.size) i32[record >>> 2] = stale
    this.#table.remove(block)
    for (const compiled of this.#compiled.get(block.host >>> 12) ?? []) if (compiled.block === block) this.#dropCompiled(compiled)
    this.#pages.remove(block)
  }

  /** The hash table and the jump cache. */
  #clearTable(): void {
    const jumps = this.#core.base + JUMP_CACHE
    this.#core.i32.fill(-1, jumps >>> 2, (jumps + JUMP_ENTRIES * JUMP.entry) >>> 2)
    this.#table.clear()
  }
}
