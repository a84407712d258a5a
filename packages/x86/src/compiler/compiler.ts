/**
 * The compiler tier as the run loop sees it: collects hot blocks, sends them to be compiled in batches, and installs the resulting regions in place
 * of the blocks unless the code has changed meanwhile. Independent of instructions and of which thread compiles.
 */
import type { BlockCache } from '../code/blocks.ts'
import type { Block } from '../code/block.ts'
import type { HandlerTable } from '../code/handler-table.ts'
import { NEVER_HOT } from '../code/record.ts'
import { MODE } from '../state/mode.ts'
import type { RegionMemory } from './region-memory.ts'
import { createRegionCompiler, moduleOf, type RegionCode, type RegionModule, type RegionRequest, type RegionService } from './region-service.ts'

/** Regions per batch: fewer modules keep code together, but waiting for more delays what is ready. */
const BATCH = 8
/** Slices for which a region waits for others to fill its module. */
const PATIENCE = 2
/** Runs after which a block has waited too long for another thread: a few milliseconds' worth. Compiling on the vCPU's own thread stops the guest. */
const LATE = 50_000

export interface CompilerStatistics {
  regions: number
  /** Of them, those that were remembered. */
  remembered: number
  instructions: number
  modules: number
  bytes: number
  milliseconds: number
  refused: number
}

interface Candidate {
  readonly block: Block
  /** The page's generation when its bytes were read. */
  readonly generation: number
}
interface Remembered extends Candidate {
  readonly made: RegionCode
}

export class Compiler {
  readonly statistics: CompilerStatistics = { regions: 0, remembered: 0, instructions: 0, modules: 0, bytes: 0, milliseconds: 0, refused: 0 }
  readonly #blocks: BlockCache
  readonly #handlers: HandlerTable
  readonly #bytes: Uint8Array
  readonly #service: RegionService
  readonly #memory: RegionMemory | undefined
  readonly #here = createRegionCompiler()
  #queue: Block[] = []
  /** Blocks that have been sent to be compiled, or will be. */
  readonly #waiting = new Set<Block>()
  /** Blocks whose regions were remembered. */
  #remembered: Remembered[] = []
  #waited = 0
  /** Only one batch is being compiled at a time; blocks that become hot meanwhile form the next one. */
  #away = false

  constructor(blocks: BlockCache, handlers: HandlerTable, bytes: Uint8Array, service: RegionService, memory?: RegionMemory) {
    this.#blocks = blocks
    this.#handlers = handlers
    this.#bytes = bytes
    this.#service = service
    this.#memory = memory
  }

  /** A block has become hot. It is compiled with the next batch, or at once if it has kept running while it waited. */
  add(block: Block): void {
    if (block.mode & MODE.csLimited || block.nextPage >= 0) return this.#blocks.setHeat(block, NEVER_HOT)
    const late = this.#waiting.has(block)
    this.#blocks.setHeat(block, late ? NEVER_HOT : LATE)
    if (late) return this.#send(this.#here, [block])
    this.#waiting.add(block)
    const made = this.#memory?.find(this.#bytes, block, [...this.#blocks.trappedRows(block.mode)])
    if (made) {
      this.#remembered.push({ block, generation: this.#blocks.generation(block.host), made })
      if (this.#remembered.length >= BATCH) this.#flushRemembered()
    } else {
      this.#queue.push(block)
      if (this.#queue.length >= BATCH) this.flush()
    }
  }

  /** A slice has ended: compiles blocks that have waited long enough for a full batch. */
  tick(): void {
    // What is remembered needs no thread: the first requests that come in a burst start it.
    if (!this.#memory) this.#service.prepare?.()
    if (this.#queue.length + this.#remembered.length && ++this.#waited >= PATIENCE) this.flush()
  }

  /** Sends waiting blocks to be compiled. Not while wasm code is running. */
  flush(): void {
    this.#waited = 0
    if (this.#remembered.length) this.#flushRemembered()
    if (!this.#queue.length || this.#away) return
    const blocks: Block[] = []
    for (const block of this.#queue) {
      if (this.#isWanted(block)) blocks.push(block)
      // The block was dropped while it was queued: no result will arrive for it, so stop waiting.
      else this.#waiting.delete(block)
    }
    this.#queue = []
    if (!blocks.length) return
    this.#away = true
    this.#send(this.#service, blocks, () => (this.#away = false))
  }

  #flushRemembered(): void {
    const remembered = this.#remembered
    this.#remembered = []
    for (const { block } of remembered) this.#waiting.delete(block)
    const there = remembered.filter(({ block }) => this.#isWanted(block))
    const result = moduleOf(there.map(({ made }) => made), this.#handlers.moduleContext)
    this.statistics.remembered += this.#install(there, result).length
  }

  #send(service: RegionService, blocks: readonly Block[], returned = (): void => {}): void {
    const candidates = blocks.map((block) => ({ block, generation: this.#blocks.generation(block.host) }))
    const requests = this.#requests(candidates)
    service.compile(requests, this.#handlers.moduleContext, (result) => {
      returned()
      const installed = new Set(this.#install(candidates, result))
      const worthKeeping = candidates.map(({ block }, n) => ({ block, request: requests[n]!, made: result.regions[n]! }))
      this.#memory?.add(worthKeeping.filter(({ block }) => installed.has(block)))
      for (const { block } of candidates) this.#waiting.delete(block)
    })
  }
  /** The block still exists and no region has replaced it yet. */
  #isWanted(block: Block): boolean {
    return this.#blocks.isCurrent(block) && !this.#blocks.isCompiled(block)
  }

  #requests(candidates: readonly Candidate[]): RegionRequest[] {
    return candidates.map(({ block: { host, mode } }, n) => {
      const page = host - (host & 0xfff)
      // A region ends where another begins, including those of the same batch.
      const earlier = candidates.slice(0, n).filter(({ block }) => block.mode === mode && block.host >>> 12 === host >>> 12)
      return {
        bytes: this.#bytes.slice(page, page + 0x1000),
        entry: host & 0xfff,
        mode,
        entries: [...this.#blocks.entriesOn(host, mode), ...earlier.map(({ block }) => block.host & 0xfff)],
        targets: this.#blocks.busyOn(host, mode, this.#waiting),
        trapped: [...this.#blocks.trappedRows(mode)],
      }
    })
  }

  /** The blocks that the regions have replaced. */
  #install(candidates: readonly Candidate[], { module, bytes, milliseconds, regions }: RegionModule): Block[] {
    const { statistics } = this
    statistics.milliseconds += milliseconds
    statistics.refused += regions.filter((region) => !region).length
    if (!module) return []
    const there = candidates.map((candidate, n) => ({ ...candidate, region: regions[n]?.region })).filter(({ region }) => region)
    const indices = this.#handlers.install(module, there.length)
    statistics.modules++
    statistics.bytes += bytes
    const installed: Block[] = []
    for (const [n, { block, generation, region }] of there.entries()) {
      // A region whose code changed while it was compiled is not installed.
      if (!this.#isWanted(block) || this.#blocks.generation(block.host) !== generation || !this.#blocks.hasRoom) {
        this.#handlers.release(indices[n]!)
        continue
      }
      this.#blocks.replace(block, indices[n]!, region!)
      statistics.regions++
      statistics.instructions += region!.instructions
      installed.push(block)
    }
    return installed
  }
}
