/**
 * The compiler tier: turns hot blocks into regions of WebAssembly and puts them in the blocks' place. Regions are compiled in
 * batches, found again by the bytes they were made from, and dropped when those change. Knows no instruction.
 */
import type { DecodeMode } from '../decode/decoder.ts'
import type { Instruction } from '../decode/instruction.ts'
import type { Block, BlockCache } from '../interpreter/blocks.ts'
import type { Handlers } from '../interpreter/handlers.ts'
import { NEVER_HOT } from '../interpreter/record.ts'
import type { Flow, Row } from '../rows/index.ts'
import { semantics } from '../semantics/index.ts'
import { MODE } from '../state/mode.ts'
import { NotCompilable, RegionBuilder } from './region-builder.ts'
import { findRegion, type Region } from './region.ts'

/** Regions in one module: fewer modules keep code together, waiting for more delays what is ready. */
const BATCH = 24
/** Slices that a region waits for others to fill its module. */
const PATIENCE = 4

export interface CompilerStatistics {
  regions: number
  instructions: number
  modules: number
  bytes: number
  milliseconds: number
  refused: number
}

interface Candidate {
  readonly block: Block
  readonly region: Region
  readonly body: RegionBuilder
  /** Of the page, when its bytes were read. */
  readonly generation: number
}

export class Compiler {
  readonly statistics: CompilerStatistics = { regions: 0, instructions: 0, modules: 0, bytes: 0, milliseconds: 0, refused: 0 }
  readonly #blocks: BlockCache
  readonly #handlers: Handlers
  readonly #bytes: Uint8Array
  /** Rows whose semantics were found not to compile. */
  readonly #refused = new Set<Row>()
  #queue: Candidate[] = []
  #waited = 0

  constructor(blocks: BlockCache, handlers: Handlers, bytes: Uint8Array) {
    this.#blocks = blocks
    this.#handlers = handlers
    this.#bytes = bytes
  }

  /** A block has become hot. It is compiled with the next batch. */
  add(block: Block, decodeMode: DecodeMode): void {
    this.#blocks.setHeat(block, NEVER_HOT)
    if (block.mode & MODE.csLimited || block.nextPage >= 0) return
    const started = performance.now()
    const candidate = this.#build(block, decodeMode)
    this.statistics.milliseconds += performance.now() - started
    if (!candidate) {
      this.statistics.refused++
      return
    }
    this.#queue.push(candidate)
    if (this.#queue.length >= BATCH) this.flush()
  }

  /** A slice has ended: what has waited for company long enough is compiled. */
  tick(): void {
    if (this.#queue.length && ++this.#waited >= PATIENCE) this.flush()
  }

  /** Compiles what waits. Not while wasm code is running. */
  flush(): void {
    if (!this.#queue.length) return
    this.#waited = 0
    const started = performance.now()
    const ready = this.#queue.filter(({ block, generation }) => this.#blocks.isCurrent(block) && this.#blocks.generation(block.host) === generation)
    this.#queue = []
    if (!ready.length) return
    const { indices, bytes } = this.#handlers.install(ready.map(({ body }) => body))
    for (const [i, { block, region }] of ready.entries()) {
      this.#blocks.replace(block, indices[i]!, extents(region))
      this.statistics.instructions += region.blocks.reduce((sum, b) => sum + b.instructions.length, 0)
    }
    this.statistics.regions += ready.length
    this.statistics.modules++
    this.statistics.bytes += bytes
    this.statistics.milliseconds += performance.now() - started
  }

  #build(block: Block, decodeMode: DecodeMode): Candidate | undefined {
    const page = block.host - (block.host & 0xfff)
    const { mode } = block
    // An instruction that turns out not to compile is left out, and the region is built again without it.
    for (;;) {
      const region = findRegion(
        { bytes: this.#bytes, page, mode, decodeMode, compilable: (instruction) => this.#compilable(instruction, mode), isEntry: (ip) => this.#blocks.isCompiled(page + ip, mode) },
        block.host & 0xfff,
      )
      if (!region) return undefined
      let running: Instruction | undefined
      try {
        const builder = new RegionBuilder(mode, {
          meaningOf: (instruction) => semantics[(running = instruction).row.semantics]!,
          wayOut: (ip) => this.#blocks.wayOut(page, ip, mode),
        })
        builder.build(region)
        return { block, region, body: builder, generation: this.#blocks.generation(page) }
      } catch (error) {
        if (!(error instanceof NotCompilable) || !running) throw error
        this.#refused.add(running.row)
      }
    }
  }

  #compilable(instruction: Instruction, mode: number): boolean {
    const { row } = instruction
    if (this.#refused.has(row) || !semantics[row.semantics] || row.attributes.shadow) return false
    if (row.attributes.cpl === 0 && mode & MODE.user) return false
    if (row.attributes.exit || !FLOWS.has(row.attributes.flow)) return false
    // A region counts on branches that do not cut RIP below the code size, or reach beyond it.
    if (row.operands[0]?.kind === 'J' && instruction.operandSize !== instruction.codeSize) return false
    return this.#blocks.available(row, mode)
  }
}

/** Ways to go on that a region knows; the rest is the interpreter's. */
const FLOWS: ReadonlySet<Flow | undefined> = new Set([undefined, 'conditional', 'jump', 'call', 'indirectJump', 'indirectCall', 'return'])

/** The bytes a region was made from, as [start, end) offsets in its page. */
function extents(region: Region): { start: number; end: number }[] {
  return region.blocks.map(({ start, end }) => ({ start, end }))
}
