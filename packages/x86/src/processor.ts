/**
 * The processor: runs guest code until something outside must act. Contains the run loop between wasm code and the cold parts. Its environment is
 * passed in as a ProcessorHost. (SDM Vol. 3A throughout)
 */
import { KickInbox } from '@nonroot/contracts'
import { BLOCK_TABLE_SIZE } from './code/block-table.ts'
import { BlockCache } from './code/blocks.ts'
import { CodeAtRip } from './code/code-at-rip.ts'
import { LONGEST_BLOCK } from './code/record.ts'
import { Compiler } from './compiler/compiler.ts'
import type { RegionMemory } from './compiler/region-memory.ts'
import { createRegionCompiler, type RegionService } from './compiler/region-service.ts'
import { resetProcessor } from './control/reset.ts'
import { afterInstruction, beforeInstruction, trapIsDue } from './events/debug.ts'
import { deliverException, deliverInterrupt, type Delivery } from './events/deliver.ts'
import { handlerImports } from './handler-imports.ts'
import { Handlers } from './interpreter/handlers.ts'
import type { PrebuiltHandlers } from './interpreter/handlers.ts'
import { flushAll } from './paging/index.ts'
import { ProcessorMemory } from './processor-memory.ts'
import { exitOf } from './rows/exits.ts'
import { SliceAccount } from './slice-account.ts'
import { Core, GuestFault, type ProcessorHost } from './state/core.ts'
import { EXIT, S, VCPU_TOTAL } from './state/layout.ts'
import { RECORD } from './state/record.ts'
import { FLAG, VECTOR } from './state/register-bits.ts'
import { SHADOW, setShadow, type Shadow } from './state/shadow.ts'
import { sliceIsOver } from './state/slice.ts'
import { systemRoutineNumber } from './system/index.ts'

/** Why `run` returned. */
export type StopReason = 'budget' | 'kick' | 'halt' | 'shutdown' | 'stop' | 'attention'

export interface ProcessorOptions {
  /** Bytes for decoded blocks; all are dropped when it is full. Default 128 MiB. */
  readonly codeCache?: number | undefined
  /** Use the compiler tier. Default true. */
  readonly compile?: boolean
  /** Prebuilt handlers (interpreter/prebuilt.ts). */
  readonly prebuilt?: PrebuiltHandlers | undefined
  /** A budget of at most so many instructions is kept exactly, at the price of executing them one by one. Default: 0. */
  readonly exactBudget?: number
  /** Compiles regions. Default: on the caller's own thread, at once. */
  readonly regions?: RegionService | undefined
  /** What earlier runs found hot, and where this one's is added. */
  readonly regionMemory?: RegionMemory | undefined
}

/** Generations restart before they overflow, which takes hours of nothing but address-space switches. */
const GENERATIONS = 0x7fff_0000

const EXIT_KINDS = Math.max(...Object.values(EXIT)) + 1
/** Exits that compiled code makes with its own record; others do not change the `record` slot. */
const IN_MIDST = Uint8Array.from({ length: EXIT_KINDS }, (_, exit) =>
  exit === EXIT.exception || exit === EXIT.budget || exit === EXIT.interpret ? 1 : 0,
)

/** Exits after which a single-stepped instruction has had no effect. */
const UNDONE = Uint8Array.from({ length: EXIT_KINDS }, (_, exit) =>
  ([EXIT.exception, EXIT.abandoned, EXIT.crossing, EXIT.interpret, EXIT.shutdown] as number[]).includes(exit) ? 1 : 0,
)

export class Processor {
  readonly core: Core
  readonly blocks: BlockCache
  readonly handlers: Handlers
  readonly compiler: Compiler
  /** Requests of other threads that `run` ends. The caller of `run` calls `enter` and `leave`, and takes them. */
  readonly kicks: KickInbox
  /** How often wasm code returned, by reason (EXIT): interpreted code, and side exits of compiled code. */
  readonly left = new Float64Array(EXIT_KINDS)
  readonly leftCompiled = new Float64Array(EXIT_KINDS)
  readonly #exactBudget: number
  readonly #slice: SliceAccount
  readonly #code: CodeAtRip
  readonly #memory: ProcessorMemory
  readonly #unwatch: () => void

  constructor(host: ProcessorHost, options: ProcessorOptions = {}) {
    const codeCache = options.codeCache ?? 128 << 20
    const memory = (this.#memory = new ProcessorMemory(host.memory))
    const base = memory.take(VCPU_TOTAL)
    const core = (this.core = new Core(host, base))
    this.#exactBudget = options.exactBudget ?? 0
    this.kicks = new KickInbox({ buffer: host.memory.memory.buffer, offset: base + S.kick })
    const table = memory.take(BLOCK_TABLE_SIZE)
    const arena = memory.take(codeCache)
    this.handlers = new Handlers({
      memory: host.memory.memory,
      prebuilt: options.prebuilt,
      systemRoutine: systemRoutineNumber,
      exitOf: (instruction) => exitOf(instruction.row),
      imports: handlerImports(core),
    })
    this.blocks = new BlockCache(core, this.handlers, { start: arena, size: codeCache }, table, options.regionMemory)
    core.code = this.blocks
    this.#code = new CodeAtRip(core, this.blocks)
    this.#slice = new SliceAccount(core)
    this.compiler = new Compiler(this.blocks, this.handlers, core.u8, options.regions ?? createRegionCompiler(), options.regionMemory)
    if (options.compile === false) this.blocks.hotness = 0
    core.retired = () => this.retired
    this.#unwatch = host.memory.watchWrites((hpa, length) => this.blocks.overwritten(hpa, length))
    resetProcessor(core)
  }

  /** Instructions retired since power-up, exact even in the middle of a system routine. */
  get retired(): number {
    return this.#slice.retired
  }

  /** `CodeAtRip.firstBlockAt`. */
  get firstBlockAt(): number | undefined {
    return this.#code.firstBlockAt
  }

  /** Frees its frames. It must not be used afterwards. */
  dispose(): void {
    this.#unwatch()
    this.blocks.reset()
    this.#memory.free()
  }

  /** Makes the slice end at the next block, or at the end of a chunk if compiled code is accessing memory. Call it from within the run only. */
  yield(): void {
    this.#slice.cut()
  }

  /** Runs about `budget` instructions, or less. A region may exceed it, as it looks at it only where it begins and at the heads of its loops. */
  run(budget: number): StopReason {
    const { core } = this
    this.blocks.enter()
    if (core.paging.lastGeneration >= GENERATIONS) this.#restartGenerations()
    this.#slice.start(budget)
    const singly = budget <= this.#exactBudget
    for (;;) {
      if (singly || core.get32(S.flags) & FLAG.TF || core.debugging || core.pendingDebug || this.#code.isNearLimit(LONGEST_BLOCK)) {
        const stop = this.#step()
        if (stop) return stop
        if (sliceIsOver(core)) return this.#slice.end()
        continue
      }
      const block = this.#code.block(0)
      if (!block) {
        const stop = this.#fault()
        if (stop) return stop
        if (sliceIsOver(core)) return this.#slice.end()
        continue
      }
      this.handlers.enter(core.base, block.first)
      const stop = this.#exit()
      if (stop) return stop
    }
  }

  /** Drops everything that has a generation. */
  #restartGenerations(): void {
    this.blocks.reset()
    this.core.paging.lastGeneration = 0
    this.core.paging.regions.fill(-1)
    flushAll(this.core)
  }

  /**
   * Single-steps one instruction, or delivers the trap of the previous one: single steps, breakpoints, some instructions in a shadow. `known`: its
   * record, if there is one.
   */
  #step(known = 0): StopReason | undefined {
    const { core } = this
    if (trapIsDue(core)) {
      core.raise(VECTOR.DB)
      return this.#fault()
    }
    const held = core.pendingDebug
    if (beforeInstruction(core)) return this.#fault()
    const covered = core.get32(S.shadow) as Shadow
    if (covered) setShadow(core, SHADOW.none)
    core.covered = covered
    const block = known ? undefined : this.#code.block(1)
    if (!known && !block) {
      this.#cover(covered)
      return this.#fault()
    }
    // The budget allows one instruction; the next block's entry ends the slice. A private block subtracts the instruction itself.
    this.#slice.setAside(block ? 1 : 0)
    this.handlers.enter(core.base, block ? block.first : known)
    if (block) this.blocks.release(block)
    const exit = core.get32(S.exit)
    const isDone = this.#isDone(exit)
    if (!isDone) {
      this.#cover(covered)
      // Breakpoints matched by an instruction that did not complete are discarded.
      if (exit === EXIT.exception && core.get32(S.vector) !== VECTOR.DB) core.pendingDebug = held
    }
    let stop: StopReason | undefined
    if (exit === EXIT.budget) {
      // The next instruction's block, or a repeated instruction that has not finished and is not counted yet.
      this.#giveBack(0)
      core.set64(S.rip, core.recordRip())
    } else stop = this.#exit()
    core.covered = SHADOW.none
    if (core.get32(S.lazyKind)) this.handlers.settleFlags(core.base, 0)
    core.set32(S.exit, EXIT.lookup)
    this.#slice.putBack()
    return isDone ? this.#afterStep(stop, covered !== SHADOW.none) : stop
  }

  /** After a completed instruction: its traps are delivered first, then pending events. */
  #afterStep(stop: StopReason | undefined, wasCovered: boolean): StopReason | undefined {
    const { core } = this
    afterInstruction(core)
    // A trap is pending: it ends a halt and is delivered first when the hypervisor continues.
    if (stop === 'halt' || stop === 'stop') return stop
    if (trapIsDue(core)) {
      core.raise(VECTOR.DB)
      stop = this.#fault()
    }
    const isOpen = core.get32(S.shadow) === SHADOW.none && (wasCovered || core.get32(S.flags) & FLAG.IF)
    return stop ?? (isOpen && core.get32(S.attention) ? 'attention' : undefined)
  }

  /** Whether the single-stepped instruction has completed. */
  #isDone(exit: number): boolean {
    if (UNDONE[exit]) return false
    // Waiting for FERR# halts before the instruction.
    return exit !== EXIT.halt || this.core.get64(S.rip) !== this.core.recordRip()
  }

  /** The instruction will run again, in the same shadow, unless a handler has ended it. */
  #cover(shadow: Shadow): void {
    if (this.core.covered) setShadow(this.core, shadow)
    this.core.covered = SHADOW.none
  }

  /** Runs one instruction of a block: for budgets smaller than a block. */
  step(): StopReason | undefined {
    this.blocks.enter()
    return this.#step()
  }

  /** Handles the exit of wasm code. A stop reason ends the run. */
  #exit(): StopReason | undefined {
    const { core } = this
    const exit = core.get32(S.exit)
    const inRegion = IN_MIDST[exit] === 1 && core.get32(S.record) === ((core.base + S.compiledRecord) | 0)
    if (inRegion) this.leftCompiled[exit]!++
    else this.left[exit]!++
    core.set32(S.exit, EXIT.lookup)
    if (core.get32(S.lazyKind)) this.handlers.settleFlags(core.base, 0)
    switch (exit) {
      case EXIT.lookup:
      case EXIT.none:
        return undefined
      case EXIT.budget:
        this.#giveBack(0)
        core.set64(S.rip, core.recordRip())
        this.compiler.tick()
        return this.#slice.end()
      case EXIT.exception:
        this.#giveBack(0)
        core.set64(S.rip, core.recordRip())
        return this.#deliver(deliverException(core, core.get32(S.vector), core.get32(S.errorCode)))
      case EXIT.hot: {
        core.set64(S.rip, core.recordRip())
        const block = this.blocks.at(core.get32(S.record) >>> 0)
        if (block) this.compiler.add(block)
        return undefined
      }
      case EXIT.interpret:
        this.#giveBack(0)
        core.set64(S.rip, core.recordRip())
        // In a shadow the instruction's own record is the next one.
        return this.#step(inRegion ? 0 : (core.get32(S.record) >>> 0) + RECORD.size)
      case EXIT.crossing: {
        this.#giveBack(0)
        core.set64(S.rip, core.recordRip())
        const record = core.get32(S.record) >>> 0
        const expected = core.i32[(record + RECORD.immediate) >>> 2]! >>> 0
        return this.#code.checkNextPage(expected) ? undefined : this.#fault()
      }
      // The instruction has completed, and its shadow ends.
      case EXIT.halt:
        this.#giveBack(1)
        setShadow(core, SHADOW.none)
        return 'halt'
      case EXIT.attention:
        this.#giveBack(1)
        setShadow(core, SHADOW.none)
        return 'attention'
      case EXIT.stop:
        this.#giveBack(1)
        setShadow(core, SHADOW.none)
        return 'stop'
      case EXIT.abandoned:
        this.#giveBack(0)
        core.set64(S.rip, core.recordRip())
        return 'stop'
      case EXIT.shutdown:
        return 'shutdown'
      default:
        throw new Error(`exit code ${exit} is not one that handlers give`)
    }
  }

  /** Returns to the budget the instructions of the block from `record` on, except those `done`. */
  #giveBack(done: number): void {
    const { core } = this
    const record = core.get32(S.record) >>> 0
    const back = core.u8[record + RECORD.remaining]! - done
    core.set32(S.budget, core.get32(S.budget) + back)
    if (record !== core.base + S.compiledRecord) this.blocks.givenBack += back
  }

  /** Delivers a fault raised by fetching or stepping, at RIP; a fetch may also have exited to the hypervisor. */
  #fault(): StopReason | undefined {
    const { core } = this
    const exit = core.get32(S.exit)
    core.set32(S.exit, EXIT.lookup)
    if (exit === EXIT.stop || exit === EXIT.abandoned) return 'stop'
    return this.#deliver(deliverException(core, core.get32(S.vector), core.get32(S.errorCode)))
  }
  #deliver(delivery: Delivery): StopReason | undefined {
    // An exception counts as an instruction, so that a handler that faults at once cannot block the slice.
    if (delivery === 'delivered') this.core.set32(S.budget, this.core.get32(S.budget) - 1)
    return delivery === 'delivered' ? undefined : delivery
  }

  /** Delivers an external interrupt or NMI at RIP; the caller has checked that it may be delivered. */
  interrupt(vector: number, kind: 'external' | 'nmi' = 'external'): StopReason | undefined {
    return this.#deliver(deliverInterrupt(this.core, vector, kind))
  }
}

export { Core, GuestFault, type ProcessorHost }
