/** The compiled regions that are installed in place of blocks. */
import type { Core } from '../state/core.ts'
import { RECORD } from '../state/record.ts'
import type { Arena } from './arena.ts'
import type { Block } from './block.ts'
import type { CodePages } from './code-pages.ts'
import type { CompiledRegion } from './compiled-region.ts'
import type { HandlerTable } from './handler-table.ts'
import type { Heat } from './heat.ts'
import { TARGETS } from './record.ts'
import { linkFor, type RecordWriter } from './record-writer.ts'

interface Installed {
  readonly block: Block
  /** Offsets in the page of the bytes that it was compiled from. */
  readonly extents: CompiledRegion['extents']
  readonly handler: number
}

export interface RegionsParts {
  readonly core: Core
  readonly handlers: HandlerTable
  readonly arena: Arena
  readonly writer: RecordWriter
  readonly pages: CodePages
  readonly heat: Heat
}

export class Regions {
  readonly #parts: RegionsParts
  /** By frame number. */
  readonly #installed = new Map<number, Set<Installed>>()
  /** Address of the table of indirect-jump targets of a page and mode. */
  readonly #targets = new Map<string, number>()
  count = 0

  constructor(parts: RegionsParts) {
    this.#parts = parts
  }

  has({ host, first }: Block): boolean {
    return [...this.#on(host >>> 12)].some(({ block }) => block.first === first)
  }
  /** Offsets in its page at which compiled code has replaced a block of this mode. */
  entriesOn(host: number, mode: number): number[] {
    const offsets: number[] = []
    for (const { block } of this.#on(host >>> 12)) if (block.mode === mode) offsets.push(block.host & 0xfff)
    return offsets
  }

  /** Installs compiled code in place of the block. */
  install(block: Block, handler: number, { extents, exits, usesTargets }: CompiledRegion): void {
    const { core, pages } = this.#parts
    const page = block.host >>> 12
    const word = block.first >>> 2
    const { i32 } = core
    i32[word + (RECORD.exits >> 2)] = this.#exits(exits, block.mode)
    if (usesTargets) i32[word + (RECORD.targets >> 2)] = this.#targetsOf(page, block.mode)
    i32[word] = handler
    let regions = this.#installed.get(page)
    if (!regions) this.#installed.set(page, (regions = new Set()))
    regions.add({ block, extents, handler })
    this.count++
    for (const { start, end } of extents) pages.mark(page * 0x1000 + start, end - start)
  }

  /** Drops those compiled from bytes in [from, to) of a frame. */
  dropIn(page: number, from: number, to: number): void {
    for (const region of this.#on(page)) {
      if (region.extents.some(({ start, end }) => start < to && end > from)) this.#drop(region)
    }
  }
  /** Drops the one in place of a block. */
  dropOf(block: Block): void {
    for (const region of this.#on(block.host >>> 12)) if (region.block === block) this.#drop(region)
  }
  clear(): void {
    for (const regions of this.#installed.values()) for (const { handler } of regions) this.#parts.handlers.release(handler)
    this.#installed.clear()
    this.#targets.clear()
    this.count = 0
  }

  #on(page: number): Iterable<Installed> {
    return this.#installed.get(page) ?? []
  }

  #drop(region: Installed): void {
    const { core, handlers, heat, pages } = this.#parts
    const { block, handler } = region
    const page = block.host >>> 12
    const regions = this.#installed.get(page)!
    regions.delete(region)
    this.count--
    if (!regions.size) this.#installed.delete(page)
    if (pages.find(block.host, block.mode) === block) {
      core.i32[block.first >>> 2] = handlers.special('enterBlock')
      heat.settle(block.first)
      heat.start(block.first, heat.initial(this.count))
    }
    handlers.release(handler)
  }

  /** Writes consecutive records that continue at offsets of a page: the exit records of compiled code. */
  #exits(offsets: readonly number[], mode: number): number {
    const { core, handlers, arena, writer } = this.#parts
    const first = arena.next
    for (const ip of offsets) {
      const record = arena.take(RECORD.size)
      writer.goOn(record, ip, linkFor(ip, mode, false))
      core.u8[record + RECORD.remaining] = 0
    }
    handlers.flush()
    return first
  }

  /** The table in which compiled code on a page looks up targets of indirect jumps on that page. */
  #targetsOf(page: number, mode: number): number {
    const at = `${page}/${mode}`
    let table = this.#targets.get(at)
    if (table === undefined) {
      table = this.#parts.arena.take(TARGETS * 8)
      this.#parts.core.i32.fill(-1, table >>> 2, (table >>> 2) + TARGETS * 2)
      this.#targets.set(at, table)
    }
    return table
  }
}
