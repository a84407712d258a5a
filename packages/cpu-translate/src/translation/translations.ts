/**
 * The translation cache: code in host frames that no table maps. Translated code is fetched from a range of addresses that the processor is given
 * frames for when it fetches, and only then; data accesses to the same range find what the guest's own tables have there. @hot
 */

import { NonrootError } from '@nonroot/contracts'
import type { Counter, HostMemory, Hpa, Metrics } from '@nonroot/contracts'
import { EXIT, fetchPage, S } from '@nonroot/x86'
import type { Core, Processor } from '@nonroot/x86'
import type { QuickTraps } from '../monitor/quick-traps.ts'
import { CodePages, usesBytes, type CodePage, type TranslatedBlock } from './code-pages.ts'
import { putJump, STUB, TRAP } from './encode.ts'
import { Lookup } from './lookup.ts'
import { POINT, Points } from './points.ts'
import type { Target } from './shortcuts.ts'
import { Translator, WORST_BLOCK } from './translator.ts'

const FRAME = 4096
/**
 * Upper halves of the addresses where the cache may be: a gap of Linux's address space first. One root entry each. Relative branches do not reach the
 * boundary of canonical addresses from there, so that the processor need not check them.
 */
const FIRST_PLACE = 0xffff_8001 | 0
const PLACE_STEP = 1 << 7
const PLACES = 128

export class Translations {
  /** The guest uses the addresses of the cache: another range, before translated code runs again. */
  mustMove = false
  /** Changes when the cache is emptied: no offset or point is valid any more. */
  epoch = 0
  readonly points: Points
  readonly quick: QuickTraps
  readonly pages = new CodePages()
  readonly #processor: Processor
  readonly #core: Core
  readonly #host: HostMemory
  /** Frames of the cache, in one piece. */
  readonly #start: number
  readonly #size: number
  readonly #translator: Translator
  readonly #isGlobal: (low: number, high: number) => boolean
  readonly #entries = new Lookup()
  #place = 0
  #used = 0
  /** Pages to be looked up again before translated code runs. */
  readonly #due = new Set<CodePage>()
  /** Rights may have changed, or global pages. */
  #isAllDue = false

  readonly #blocks: Counter
  readonly #instructions: Counter
  readonly #dropped: Counter
  readonly #flushes: Counter
  readonly #links: Counter
  readonly #moves: Counter
  readonly #checks: Counter

  /** `isGlobal`: whether the guest's tables map an address by a global page, and CR4.PGE is set. */
  constructor(
    processor: Processor,
    host: HostMemory,
    metrics: Metrics,
    size: number,
    quick: QuickTraps,
    isGlobal: (low: number, high: number) => boolean,
  ) {
    this.#isGlobal = isGlobal
    this.#processor = processor
    this.#core = processor.core
    this.#host = host
    this.#size = size
    this.points = new Points(size)
    const start = host.allocateFrames(size / FRAME)
    if (start === undefined)
      throw new NonrootError({
        code: 'host.memory',
        message: `host memory has no ${size >>> 20} MiB in one piece left for a translation cache`,
        thing: 'host.memory',
        remedy: 'make host.memory larger, or translationCacheMiB of stack.cpu smaller',
      })
    this.#start = start
    this.quick = quick
    this.quick.placeCache(this.#high)
    this.#translator = new Translator(host.bytes, start, this.points, (low, high) => this.#entries.find(low, high))
    this.#blocks = metrics.counter('blocks', 'blocks of kernel code translated')
    this.#instructions = metrics.counter('instructions', 'guest instructions translated')
    this.#dropped = metrics.counter('dropped', 'translated blocks dropped: overwritten, or mapped elsewhere')
    this.#flushes = metrics.counter('flushes', 'times that the cache was full and was emptied')
    this.#links = metrics.counter('links', 'exits of blocks that became jumps to their successors')
    this.#moves = metrics.counter('moves', "times that the cache left addresses of the guest's")
    this.#checks = metrics.counter('checks', 'code pages looked up again after the guest flushed translations')
    processor.blocks.watcher = { written: (at, length) => this.#written(at, length), reset: () => this.#watchAgain() }
  }

  /** The processor answers frequent traps by itself: before it has decoded any code. */
  answerQuickly(): void {
    this.#processor.handlers.precede('trapped', (b) => this.quick.emit(b, this.#start, this.#size))
  }

  get targets(): readonly (Target | undefined)[] {
    return this.#translator.targets
  }
  get used(): number {
    return this.#used
  }

  // --- the range of addresses ---

  get #high(): number {
    return (FIRST_PLACE + this.#place * PLACE_STEP) | 0
  }
  contains(low: number, high: number): boolean {
    return high === this.#high && low >>> 0 < this.#size
  }
  /** Number of the frame at an address of the range. */
  frameAt(low: number): number {
    return (this.#start + (low >>> 0)) >>> 12
  }
  /** RIP becomes the address of an offset. */
  enter(offset: number): void {
    this.#core.set32(S.rip, offset)
    this.#core.set32(S.rip + 4, this.#high)
  }
  /** The point at RIP, which is in the cache; -1 none. */
  pointAtRip(): number {
    const core = this.#core
    const low = core.get32(S.rip)
    return this.contains(low, core.get32(S.rip + 4)) ? this.points.find(low) : -1
  }
  /** RIP becomes the guest's. */
  leaveAt(point: number): void {
    this.#core.set32(S.rip, this.points.low(point))
    this.#core.set32(S.rip + 4, this.points.high(point))
  }

  // --- lookup ---

  /** Offset of the translation of kernel code at an address, made if there is none; -1 if it cannot be fetched now. */
  at(low: number, high: number): number {
    const known = this.#entries.find(low, high)
    if (known >= 0) return known
    const page = this.#page(low, high)
    if (!page) return -1
    if (this.#used + WORST_BLOCK > this.#size) {
      this.flush()
      this.#flushes.value++
      return this.at(low, high)
    }
    const block = this.#translator.translate(page, low, this.#used, () => this.#pageAfter(page))
    if (!block) return -1
    this.#used = block.end
    page.blocks.add(block)
    block.next?.blocks.add(block)
    for (const { low: entryLow, high: entryHigh, offset } of block.entries) {
      this.#entries.set(entryLow, entryHigh, offset)
      this.quick.forget(entryLow, entryHigh)
    }
    this.#watch(block)
    this.#changed(block.start, block.end - block.start)
    this.#blocks.value++
    this.#instructions.value += this.#translator.instructions
    return block.start
  }
  /** The same, but -1 as well if it is not translated yet, or if `settle` has something to do first. */
  ready(low: number, high: number): number {
    return this.mustMove || this.#isAllDue || this.#due.size > 0 ? -1 : this.#entries.find(low, high)
  }
  /** The same for the target of a return or an indirect branch, which is remembered. */
  target(low: number, high: number): number {
    const offset = this.at(low, high)
    if (offset >= 0) this.quick.remember(low, high, offset, this.#high)
    return offset
  }
  /** The exit at a point becomes a jump, once its successor is there: offset of that, -1 if it cannot be fetched now. */
  link(point: number): number {
    const offset = this.#core.get32(S.rip)
    const { epoch, points } = this
    const low = points.low(point)
    const target = this.at(low, points.high(point))
    // The block of the exit may have been dropped meanwhile.
    if (target < 0 || this.epoch !== epoch || points.kind(point) === POINT.moved || points.low(point) !== low) return target
    putJump(this.#host.bytes, this.#start, offset, target)
    this.#changed(offset, STUB)
    this.#links.value++
    return target
  }

  #page(low: number, high: number): CodePage | undefined {
    if (this.contains(low, high)) {
      // A fetch would find the cache.
      this.mustMove = true
      return undefined
    }
    const host = this.#fetch(low, high)
    if (host < 0) return undefined
    const known = this.pages.find(low, high)
    if (known?.host === host) return known
    if (known) this.#dropPage(known)
    const page: CodePage = { low: low & -4096, high, host, blocks: new Set() }
    this.pages.add(page, this.#isGlobal(low, high))
    return page
  }
  #pageAfter({ low, high }: CodePage): CodePage | undefined {
    const next = (low + FRAME) | 0
    return this.#page(next, next === 0 ? (high + 1) | 0 : high)
  }
  /** Frame of a page of code, as the processor would fetch it now; -1 if that faults, which is left to the interpreter. */
  #fetch(low: number, high: number): number {
    const core = this.#core
    const host = fetchPage(core, low, high)
    if (host >= 0) return (host & -4096) >>> 0
    core.set32(S.exit, EXIT.lookup)
    return -1
  }
  #changed(offset: number, length: number): void {
    this.#processor.blocks.invalidate(this.#start + offset, length)
  }

  // --- what is no longer right ---

  #written(host: number, length: number): void {
    const page = (host & -4096) >>> 0
    const from = host - page
    for (const codePage of [...this.pages.at(page)]) {
      for (const block of [...codePage.blocks])
        if (usesBytes(block, codePage, from, from + length)) this.#dropBlock(block)
      if (codePage.blocks.size === 0) this.#forget(codePage)
    }
  }
  /**
   * The code stays where it is, as traps: whatever still leads to it calls the monitor. Its entries become exits to their own addresses, which are
   * linked to new translations.
   */
  #dropBlock(block: TranslatedBlock): void {
    const { start, end, entries, page, next } = block
    this.#host.bytes.fill(TRAP, this.#start + start, this.#start + end)
    this.#changed(start, end - start)
    this.points.forget(start, end)
    for (const [n, { low, high, offset }] of entries.entries()) {
      const room = (entries[n + 1]?.offset ?? end) - offset
      this.points.change(offset, room < STUB ? POINT.moved : POINT.exit, low, high)
      if (this.#entries.find(low, high) === offset) this.#forgetEntry(low, high)
    }
    page.blocks.delete(block)
    next?.blocks.delete(block)
    this.#dropped.value++
  }
  #forgetEntry(low: number, high: number): void {
    this.#entries.delete(low, high)
    this.quick.forget(low, high)
  }
  #dropPage(page: CodePage): void {
    for (const block of [...page.blocks]) this.#dropBlock(block)
    this.#forget(page)
  }
  #forget(page: CodePage): void {
    this.#due.delete(page)
    if (this.pages.remove(page)) this.#processor.blocks.unwatch(page.host)
  }
  #watchAgain(): void {
    for (const { blocks } of this.pages.all) for (const block of blocks) this.#watch(block)
  }
  #watch({ page, next, from, to }: TranslatedBlock): void {
    const { blocks } = this.#processor
    blocks.watch(page.host + from, Math.min(to, FRAME) - from)
    if (next) blocks.watch(next.host, to - FRAME)
  }

  /** The guest invalidated one address, or everything. */
  invalidated(address: bigint | undefined): void {
    if (address === undefined) this.#isAllDue = true
    else {
      const near = this.pages.near(Number(BigInt.asIntN(32, address)), Number(BigInt.asIntN(32, address >> 32n)))
      for (const page of near) this.#due.add(page)
    }
  }
  /** CR3 was written, or (`mode`) what else decides whether code may be fetched. */
  rootChanged(mode: boolean): void {
    if (mode) this.#isAllDue = true
    else for (const page of this.pages.local) this.#due.add(page)
  }

  /** Before translated code runs again, at CPL 0 of the virtual CPU: drops what the guest's tables no longer lead to. */
  settle(): void {
    if (this.mustMove) this.#move()
    if (!this.#isAllDue && this.#due.size === 0) return
    const due = [...(this.#isAllDue ? this.pages.all : this.#due)]
    const isAll = this.#isAllDue
    this.#isAllDue = false
    this.#due.clear()
    for (const page of due) {
      this.#checks.value++
      if (this.#fetch(page.low, page.high) !== page.host) this.#dropPage(page)
      else if (isAll) this.pages.setGlobal(page, this.#isGlobal(page.low, page.high))
    }
  }

  #move(): void {
    this.mustMove = false
    this.#place = (this.#place + 1) % PLACES
    this.#moves.value++
    this.flush()
    this.quick.placeCache(this.#high)
  }

  /** Empties the cache. Not while RIP is in it. */
  flush(): void {
    if (this.#used === 0) return
    this.epoch++
    for (const page of this.pages.all) this.#processor.blocks.unwatch(page.host)
    this.pages.clear()
    this.#entries.clear()
    this.quick.clear()
    this.points.clear(this.#used)
    this.#translator.targets.length = 0
    this.#changed(0, this.#used)
    this.#used = 0
    this.#isAllDue = false
    this.#due.clear()
  }

  dispose(): void {
    this.#processor.blocks.watcher = undefined
    this.quick.dispose()
    for (let at = this.#start; at < this.#start + this.#size; at += FRAME) this.#host.freeFrame(at as Hpa)
  }
}
