/**
 * The processor: runs guest code until something outside must act. Contains the run loop between wasm code and the cold parts. Its environment is
 * passed in as a ProcessorHost. (SDM Vol. 3A throughout)
 */
import { Compiler } from './compiler/compiler.ts'
import { createRegionCompiler, type RegionService } from './compiler/region-service.ts'
import { formatSize, KickInbox, NonrootError } from '@nonroot/contracts'
import type { Hpa } from '@nonroot/contracts'
import { Core, GuestFault, type ProcessorHost } from './state/core.ts'
import { deliverException, deliverInterrupt, type Delivery } from './events/deliver.ts'
import { floatImports } from './float/imports.ts'
import { BlockCache } from './code/blocks.ts'
import type { Block } from './code/block.ts'
import { Handlers, type HandlerImport } from './interpreter/handlers.ts'
import type { PrebuiltHandlers } from './interpreter/handlers.ts'
import { LONGEST_BLOCK, PAGE_REACH } from './code/record.ts'
import { BLOCK_TABLE_SIZE } from './code/block-table.ts'
import { RECORD } from './state/record.ts'
import { fetchPage, flushAll, slowModify, slowRead, slowWrite } from './paging/index.ts'
import { checkSegment } from './state/segments.ts'
import { afterInstruction, beforeInstruction, trapIsDue } from './events/debug.ts'
import { resetProcessor } from './control/reset.ts'
import { EXIT, S, SEGMENT, VCPU_TOTAL } from './state/layout.ts'
import { FLAG, VECTOR } from './state/register-bits.ts'
import { MODE } from './state/mode.ts'
import { SHADOW, setShadow, type Shadow } from './state/shadow.ts'
import { isKicked, sliceIsOver, sliceLeft, startSlice } from './state/slice.ts'
import { exitOf } from './rows/exits.ts'
import { system, systemRoutineNumber } from './system/index.ts'

/** Why `run` returned. */
export type StopReason = 'budget' | 'kick' | 'halt' | 'shutdown' | 'stop' | 'attention'

export interface ProcessorOptions {
  /** Bytes for decoded blocks; all are dropped when it is full. Default 128 MiB. */
  readonly codeCache?: number | undefined
  /** Use the compiler tier. Default true. */
  readonly compile?: boolean
  /** Prebuilt handlers (interpreter/prebuilt.ts). */
  readonly prebuilt?: PrebuiltHandlers | undefined
  /** Compiles regions. Default: on the caller's own thread, at once. */
  readonly regions?: RegionService | undefined
}

const FRAME = 4096
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
  /** Requests of other threads that `run` ends. Whoever calls `run` enters and leaves, and takes them. */
  readonly kicks: KickInbox
  /** How often wasm code returned, by reason (EXIT): interpreted code, and side exits of compiled code. */
  readonly left = new Float64Array(EXIT_KINDS)
  readonly leftCompiled = new Float64Array(EXIT_KINDS)
  /** Instructions retired before the current slice. */
  #retired = 0
  #slice = 0
  /** Part of the slice that is reserved while an instruction is single-stepped. */
  #aside = 0
  /** Linear address of the code to find, in halves. */
  #low = 0
  #high = 0
  /** Frames of the host that hold the vCPU block, its TLB and its code: [address, bytes]. */
  readonly #taken: [number, number][] = []
  readonly #unwatch: () => void
  /** Time at which the first block had been decoded and its handlers made, by `performance.now()`. Undefined before. */
  firstBlockAt: number | undefined

  constructor(host: ProcessorHost, options: ProcessorOptions = {}) {
    const codeCache = options.codeCache ?? 128 << 20
    const take = (bytes: number): number => {
      const start = takeFrames(host, bytes)
      this.#taken.push([start, bytes])
      host.memory.setApart(Math.ceil(bytes / FRAME))
      return start
    }
    const base = take(VCPU_TOTAL)
    const core = (this.core = new Core(host, base))
    this.kicks = new KickInbox({ buffer: host.memory.memory.buffer, offset: base + S.kick })
    const table = take(BLOCK_TABLE_SIZE)
    const arena = take(codeCache)
    const codeMap = take(core.u8.length >>> 12)
    const slow = (f: (core: Core, info: number) => number): HandlerImport => ({
      params: ['i32', 'i32'],
      results: ['i32'],
      function: (_cpu: number, info: number) => {
        try {
          return f(core, info)
        } catch (fault) {
          // The bus stalled (STALLED).
          if (!(fault instanceof GuestFault)) throw fault
          core.compiled = false
          core.raise(fault.vector, fault.errorCode)
          return 1
        }
      },
    })
    this.handlers = new Handlers({
      memory: host.memory.memory,
      prebuilt: options.prebuilt,
      systemRoutine: systemRoutineNumber,
      exitOf: (instruction) => exitOf(instruction.row),
      imports: {
        slowRead: slow(slowRead),
        slowWrite: slow(slowWrite),
        slowModify: slow(slowModify),
        checkSegment: slow(checkSegment),
        slowReadOfCompiled: slow((c, info) => fromCompiled(c, slowRead, info)),
        slowWriteOfCompiled: slow((c, info) => fromCompiled(c, slowWrite, info)),
        slowModifyOfCompiled: slow((c, info) => fromCompiled(c, slowModify, info)),
        system: {
          params: ['i32', 'i32', 'i32'],
          results: ['i32'],
          function: (_cpu: number, record: number, id: number) => system(core, record, id),
        },
        ...floatImports(host.memory.memory),
      },
    })
    this.blocks = new BlockCache(core, this.handlers, { start: arena, size: codeCache }, table, codeMap)
    core.code = this.blocks
    this.compiler = new Compiler(this.blocks, this.handlers, core.u8, options.regions ?? createRegionCompiler())
    if (options.compile === false) this.blocks.hotness = 0
    core.retired = () => this.retired
    this.#unwatch = host.memory.watchWrites((hpa, length) => {
      if (this.blocks.hasCode(hpa) || this.blocks.hasCode(hpa + length - 1) || length > FRAME)
        this.blocks.invalidate(hpa, length)
    })
    resetProcessor(core)
  }

  /** Instructions retired since power-up, exact even in the middle of a system routine. */
  get retired(): number {
    return this.#retired + this.#slice - sliceLeft(this.core)
  }

  /** Frees its frames. It must not be used afterwards. */
  dispose(): void {
    this.#unwatch()
    this.blocks.reset()
    const { memory } = this.core
    for (const [start, bytes] of this.#taken) {
      for (let at = start; at < start + bytes; at += FRAME) memory.freeFrame(at as Hpa)
      memory.setApart(-Math.ceil(bytes / FRAME))
    }
    this.#taken.length = 0
  }

  /**
   * Makes the slice end at the next block, so that `run` looks at what waits. Call it from within the run only. In the midst of an access of compiled
   * code it ends with the chunk: a region has the budget in a register, which is what counts.
   */
  yield(): void {
    const { core } = this
    if (!core.compiled) this.#aside = Math.min(this.#aside, 0)
    const left = core.compiled ? core.get32(S.reserve) : sliceLeft(core)
    if (left <= 0) return
    this.#slice -= left
    core.set32(S.reserve, 0)
    if (!core.compiled) core.set32(S.budget, 0)
  }

  /** Runs about `budget` instructions, or less. */
  run(budget: number): StopReason {
    const { core } = this
    if (core.paging.generation >= GENERATIONS) this.#restartGenerations()
    this.#retired = this.retired
    this.#slice = budget
    startSlice(core, budget)
    for (;;) {
      if (core.get32(S.flags) & FLAG.TF || core.debugging || core.pendingDebug || this.#isNearLimit(LONGEST_BLOCK)) {
        const stop = this.#step()
        if (stop) return stop
        if (sliceIsOver(core)) return this.#endSlice()
        continue
      }
      const block = this.#block(0)
      if (!block) {
        const stop = this.#fault()
        if (stop) return stop
        if (sliceIsOver(core)) return this.#endSlice()
        continue
      }
      this.handlers.enter(core.base, block.first)
      const stop = this.#exit()
      if (stop) return stop
    }
  }

  /** What is left of the slice where a kick has ended it goes. */
  #endSlice(): StopReason {
    const { core } = this
    const left = core.get32(S.reserve)
    if (left <= 0) return isKicked(core) ? 'kick' : 'budget'
    this.#slice -= left
    core.set32(S.reserve, 0)
    return 'kick'
  }

  /** Drops everything that has a generation. */
  #restartGenerations(): void {
    this.blocks.reset()
    this.core.paging.generation = this.core.paging.root
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
    const block = known ? undefined : this.#block(1)
    if (!known && !block) {
      this.#cover(covered)
      return this.#fault()
    }
    // The budget allows one instruction; the next block's entry ends the slice. A private block subtracts the instruction itself.
    this.#aside = sliceLeft(core) - 1
    this.#slice -= this.#aside
    startSlice(core, block ? 1 : 0)
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
    this.#slice += this.#aside
    startSlice(core, sliceLeft(core) + this.#aside)
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
    return this.#step()
  }

  /** The block at RIP, decoded if necessary; undefined if fetching it raised a fault. */
  #block(limit: number): Block | undefined {
    const { core } = this
    if (this.#isNearLimit(1)) {
      core.raise(VECTOR.GP)
      return undefined
    }
    this.#locate()
    const low = core.get32(S.rip)
    const offset = this.#low & 0xfff
    core.set32(S.ripPage, low - offset)
    core.set32(S.ripPage + 4, core.get32(S.rip + 4) - (low >>> 0 < offset ? 1 : 0))
    const host = fetchPage(core, this.#low, this.#high)
    if (host < 0) return undefined
    // If the limit of CS may be on the page, targets of its jumps are looked up each time.
    const mode = core.get32(S.mode) | (this.#isNearLimit(PAGE_REACH - offset) ? MODE.csLimited : 0)
    if (!limit) {
      const known = this.blocks.find(host, mode)
      if (known) {
        this.blocks.publish(known)
        return known
      }
    }
    const block = this.blocks.decode(host, mode, () => this.#fetchNextPage(), limit)
    this.firstBlockAt ??= performance.now()
    if (block && !limit) this.blocks.publish(block)
    if (block && limit && this.#isNearLimit(block.length)) {
      this.blocks.release(block)
      core.raise(VECTOR.GP)
      return undefined
    }
    return block
  }

  /** Whether so many bytes of code from RIP exceed the limit of CS. (SDM Vol. 3A, "Limit Checking") */
  #isNearLimit(bytes: number): boolean {
    const { core } = this
    if ((core.get32(S.mode) & MODE.codeSize) === 2) return false
    const limit = core.segmentLimit(SEGMENT.cs)
    return limit !== 0xffff_ffff && (core.get32(S.rip) >>> 0) + bytes - 1 > limit
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
        return this.#endSlice()
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
        this.#locate()
        const next = this.#fetchNextPage()
        if (next < 0) return this.#fault()
        const expected = core.i32[(record + RECORD.immediate) >>> 2]! >>> 0
        const host = fetchPage(core, this.#low, this.#high)
        if (next !== expected && host >= 0) this.blocks.invalidate(host, 1)
        return undefined
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

  /** Linear address of RIP, into #low and #high. */
  #locate(): void {
    const { core } = this
    const long = (core.get32(S.mode) & MODE.codeSize) === 2
    const low = core.get32(S.rip)
    this.#low = long ? low : (low + core.get32(S.csBase)) | 0
    this.#high = long ? core.get32(S.rip + 4) : 0
  }
  /** HPA of the page after the located one, or -1 with the fault raised. */
  #fetchNextPage(): number {
    const low = ((this.#low | 0xfff) + 1) | 0
    const carry = low === 0 && (this.core.get32(S.mode) & MODE.codeSize) === 2 ? 1 : 0
    return fetchPage(this.core, low, (this.#high + carry) | 0)
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

/** An access of compiled code. A write must not change code, perhaps its own, so such a write is left to the interpreter. */
function fromCompiled(core: Core, access: (core: Core, info: number) => number, info: number): number {
  core.compiled = true
  const left = access(core, info)
  core.compiled = false
  return left
}

/** Contiguous frames of the host's pool. */
function takeFrames(host: ProcessorHost, bytes: number): number {
  const frames = host.memory.allocateFrames(Math.ceil(bytes / FRAME), 1)
  if (frames === undefined)
    throw new NonrootError({
      code: 'host.memory',
      message: `host memory has no ${formatSize(bytes)} in one piece left for a processor`,
      thing: 'host.memory',
      remedy: 'make host.memory larger, or machine.memory or codeCacheMiB of stack.cpu smaller',
    })
  return frames
}

export { Core, GuestFault, type ProcessorHost }
