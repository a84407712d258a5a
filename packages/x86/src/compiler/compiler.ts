/**
 * The compiler tier: turns hot blocks into regions of WebAssembly and puts them in the blocks' place. Regions are compiled in
 * batches, found again by the bytes they were made from, and dropped when those change. Knows no instruction.
 */
import type { DecodeMode } from '../decode/decoder.ts'
import type { Block, BlockCache } from '../interpreter/blocks.ts'
import type { Handlers } from '../interpreter/handlers.ts'
import { NEVER_HOT } from '../interpreter/record.ts'
import type { Row } from '../rows/index.ts'
import { MODE } from '../state/mode.ts'
import { buildRegion } from './build-region.ts'
import type { RegionBuilder } from './region-builder.ts'
import type { Region } from './region.ts'

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
    const built = buildRegion(
      {
        bytes: this.#bytes,
        page,
        mode,
        decodeMode,
        refused: this.#refused,
        available: (row) => this.#blocks.available(row, mode),
        isEntry: (ip) => this.#blocks.isCompiled(page + ip, mode),
        wayOut: (ip) => this.#blocks.wayOut(page, ip, mode),
        targets: () => this.#blocks.targets(page, mode),
      },
      block.host & 0xfff,
    )
    return built && { block, ...built, generation: this.#blocks.generation(page) }
  }
}

/** The bytes a region was made from, as [start, end) offsets in its page. */
function extents(region: Region): { start: number; end: number }[] {
  return region.blocks.map(({ start, end }) => ({ start, end }))
}
