/**
 * Sequences of one mode, each run by the interpreter and then by its compiled region, on one processor from the same random states, and
 * compared. All regions of a batch are one module, as making one costs more than what is in it.
 */
import { readRecord, writeRecord } from '../../src/compiler/region-record.ts'
import { createRegionCompiler, moduleOf, type RegionModule } from '../../src/compiler/region-service.ts'
import type { CompiledRegion } from '../../src/code/compiled-region.ts'
import { decode } from '../../src/decode/decoder.ts'
import { createInstruction } from '../../src/decode/instruction.ts'
import type { Block } from '../../src/code/block.ts'
import { flushNonGlobal } from '../../src/paging/tlb/tlb.ts'
import { readFlags } from '../../src/state/flags.ts'
import { rows } from '../../src/rows/index.ts'
import { canDropFlags } from '../../src/semantics/dead-flags.ts'
import { S, VCPU_SIZE } from '../../src/state/layout.ts'
import { updateMode } from '../../src/control/update-mode.ts'
import { Random } from '../float/operands.ts'
import { STATE, STATE_WORDS } from './architectural.ts'
import type { Mismatch } from './pair.ts'
import { layOut } from './program.ts'
import type { Sequence } from './sequence.ts'
import { hex, show, Side, type Stop } from './side.ts'
import { aimAtBorders, randomState } from './state.ts'
import { verifyRegion } from './verify-region.ts'
import { codeBase, PAGES } from './world.ts'

/** A sequence that runs longer has no end. */
const MOST_INSTRUCTIONS = 2000
/** Each from another state. First the region finds in the TLB what the interpreter used, then nothing, and its slices are short. */
const PASSES = [{ cold: false }, { cold: true }] as const
const SLICE = 1000
/** Of records, in bytes: half of what the cache of blocks has. */
const MOST_CODE = 8 << 20

const CODE_BYTES = PAGES << 12
/** Slots that a run may leave changed and that more hangs on than the vCPU block. */
const CONTROL = [S.cr0, S.cr3, S.cr4, S.efer, S.cpl, S.mode, S.dr7].map((offset) => offset >>> 2)

/** What a run left behind, but for memory and the vCPU block. */
interface Outcome {
  readonly stop: Stop
  readonly flags: number
  readonly pendingDebug: number
  readonly devices: string
}

export interface Failure extends Mismatch {
  readonly sequence: Sequence
}

/** Code from an address on that a region was made of, whose function is `handler`. */
interface Part {
  readonly host: number
  readonly region: CompiledRegion
  readonly handler: number
}

export class BatchStatistics {
  /** Passes by how the interpreter ended them. */
  readonly endings = new Map<string, number>()
  sequences = 0
  /** Of the sequences, without their UD2, and of their regions. */
  instructions = 0
  inRegions = 0
  /** Sequences whose first instruction is not for compiled code. */
  refused = 0
  /** By the interpreter. */
  retired = 0

  end(ending: string): void {
    this.endings.set(ending, (this.endings.get(ending) ?? 0) + 1)
  }
}

export class BatchRunner {
  readonly #side = new Side(false, MOST_INSTRUCTIONS)
  readonly #verifying = createRegionCompiler(verifyRegion)
  readonly #trusting = createRegionCompiler()
  readonly #verifyEvery: number
  #batches = 0
  readonly #statistics: BatchStatistics
  readonly #begin: (sequence: Sequence) => void
  /** Memory as every batch finds it, the same with the batch's code in it, and what the interpreter made of that. */
  readonly #blank: Uint8Array
  readonly #memory: Uint8Array
  readonly #memoryAfter: Uint8Array
  /** The vCPU block in the mode of this batch, as both runs of a pass find it, and as the interpreter left it. */
  readonly #vcpuBlank = new Int32Array(VCPU_SIZE >>> 2)
  readonly #vcpuBefore = new Int32Array(VCPU_SIZE >>> 2)
  readonly #vcpuAfter = new Int32Array(VCPU_SIZE >>> 2)

  /** `begin` hears of each sequence before it runs. Verifying takes as long as building: one batch in `verifyEvery` is. */
  constructor(statistics: BatchStatistics, begin: (sequence: Sequence) => void, verifyEvery: number) {
    this.#verifyEvery = verifyEvery
    this.#statistics = statistics
    this.#begin = begin
    this.#side.world.fill(new Random(1))
    this.#blank = this.#bytes.slice()
    this.#memory = this.#blank.slice()
    this.#memoryAfter = this.#blank.slice()
  }

  /** Code and data. The tables behind them, which walks mark, are no part of a state. */
  get #bytes(): Uint8Array {
    const { core, start, tables } = this.#side.world
    return core.u8.subarray(start, tables)
  }
  get #vcpu(): Int32Array {
    const { i32, base } = this.#side.processor.core
    return i32.subarray(base >>> 2, (base + VCPU_SIZE) >>> 2)
  }

  /** They lie apart, and are of one mode. */
  run(sequences: readonly Sequence[]): Failure[] {
    const { processor, world } = this.#side
    const statistics = this.#statistics
    // The last batch's code goes. A reset clears all the cache's tables: only when there must be room.
    if (processor.blocks.arenaUsed > MOST_CODE) processor.blocks.reset()
    else processor.blocks.invalidate(world.start, CODE_BYTES)
    this.#memory.set(this.#blank)
    const parts = sequences.map((sequence) => {
      const { bytes, addresses } = layOut(sequence)
      this.#memory.set(bytes, world.host(sequence.start) - world.start)
      return { begins: sequence.second === undefined ? [sequence.start] : [sequence.start, addresses[sequence.second]!], addresses }
    })
    this.#memoryAfter.set(this.#memory)
    this.#bytes.set(this.#memory)
    this.#enter(sequences[0]!)
    this.#makeHandlers(sequences)
    const made = this.#compile(parts)
    const failures: Failure[] = []
    for (const [n, sequence] of sequences.entries()) {
      statistics.sequences++
      statistics.instructions += sequence.items.length - 1
      if (!made[n]![0]) statistics.refused++
      const mismatch = this.#sequence(sequence, made[n]!.filter((part) => part !== undefined))
      if (mismatch) failures.push({ sequence, ...mismatch })
    }
    if (Buffer.compare(this.#bytes, this.#memory) !== 0) throw new Error('memory changed that no page table entry says is dirty')
    return failures
  }

  #enter({ codeSize, user, alignment, stack16 }: Sequence): void {
    this.#side.world.enter(codeSize, user, { alignment, stack16 })
    this.#vcpuBlank.set(this.#vcpu)
  }

  /** The interpreter's handlers for all of a batch as one module, rather than block by block. */
  #makeHandlers(sequences: readonly Sequence[]): void {
    const { handlers, core } = this.#side.processor
    const mode = core.get32(S.mode)
    const instruction = createInstruction(rows[0]!)
    for (const { items, codeSize } of sequences)
      for (const item of items) {
        if (!item || decode(Uint8Array.from(item.bytes), 0, item.bytes.length, { codeSize, protectedMode: true }, instruction) !== 'ok') continue
        handlers.of(instruction, mode, false)
        if (canDropFlags(instruction)) handlers.of(instruction, mode, true)
      }
    handlers.flush()
  }

  /** Regions of the parts of each sequence, by address. Undefined: the part begins with an instruction that is not for compiled code. */
  #compile(sequences: readonly { begins: readonly number[]; addresses: readonly number[] }[]): (Part | undefined)[][] {
    const { processor: { core, handlers }, world } = this.#side
    const mode = core.get32(S.mode)
    const page = (address: number) => address & ~0xfff
    const requests = sequences.flatMap(({ begins, addresses }) => begins.map((address) => {
      const at = page(world.host(address) - world.start)
      const besides = (others: readonly number[]) => others.filter((other) => other !== address && page(other) === page(address)).map((other) => other & 0xfff)
      return { bytes: this.#memory.subarray(at, at + 0x1000), entry: address & 0xfff, mode, entries: besides(begins), targets: besides(addresses), trapped: [] }
    }))
    const service = this.#batches++ % this.#verifyEvery ? this.#trusting : this.#verifying
    let made: RegionModule | undefined
    service.compile(requests, handlers.moduleContext, (result) => (made = result))
    // Every second batch is what comes back from a memory of compiled code.
    if (this.#batches & 1) made = moduleOf(made!.regions.map((region, n) => region && readRecord(writeRecord(requests[n]!, region), { ...requests[n]!, page: 0 })!), handlers.moduleContext)
    const { module, regions } = made!
    const functions = module ? handlers.install(module, regions.filter(Boolean).length) : []
    let [nextRegion, nextFunction] = [0, 0]
    return sequences.map(({ begins }) => begins.map((address) => {
      const region = regions[nextRegion++]
      return region && { host: world.host(address), region: region.region, handler: functions[nextFunction++]! }
    }))
  }

  /** Runs a sequence by the interpreter, and with its regions. */
  #sequence(sequence: Sequence, parts: readonly Part[]): Mismatch | undefined {
    const { world, processor: { blocks, handlers, core } } = this.#side
    const statistics = this.#statistics
    const random = new Random(sequence.seed ^ 0x5_11ce)
    /** The blocks that regions stand in for so far. */
    const compiled = new Map<Part, Block>()
    const enter = (handlerOf: (part: Part) => number) => {
      for (const [part, { first }] of compiled) core.i32[first >>> 2] = handlerOf(part)
    }
    const release = () => {
      for (const part of parts) if (!compiled.has(part)) handlers.release(part.handler)
    }
    for (const { region } of parts) statistics.inRegions += region.instructions
    this.#begin(sequence)
    for (const [pass, { cold }] of PASSES.entries()) {
      const slice = cold ? 8 + random.below(56) : SLICE
      this.#randomise(sequence, pass)
      this.#clean()
      const interpreted = this.#run(slice)
      statistics.retired += interpreted.stop.retired
      for (const page of world.dirtyPages()) this.#memoryAfter.set(this.#page(page), page - world.start)
      this.#vcpuAfter.set(this.#vcpu)
      // Written over with what was there already is written over, too.
      const overwritten = this.#restore(sequence) || [...compiled.values()].some((block) => !blocks.isCompiled(block))
      // Where a run without an end is cut off is not the same place; and what is done of code that is written over while it is repeated depends on slices.
      const ending = overwritten ? 'wrote over code' : interpreted.stop.retired > MOST_INSTRUCTIONS / 2 ? 'endless' : interpreted.stop.event.replace(/\(.*/, '') || interpreted.stop.reason
      statistics.end(ending)
      if (overwritten || ending === 'endless') break
      for (const part of parts) {
        const block = compiled.has(part) ? undefined : blocks.find(part.host, core.get32(S.mode))
        if (!block) continue
        blocks.replace(block, part.handler, part.region)
        compiled.set(part, block)
      }
      enter(({ handler }) => handler)
      if (cold) flushNonGlobal(core)
      const outcome = this.#run(slice)
      enter(() => handlers.special('enterBlock'))
      const differences = this.#differences(interpreted, outcome)
      const lost = this.#restore(sequence)
      if (differences.length) {
        release()
        return { pass, chunk: 0, differences }
      }
      if (lost) throw new Error('code differs that was found alike')
    }
    release()
    return undefined
  }

  /** The state that both runs of a pass begin with. */
  #randomise({ seed, start, codeSize, user }: Sequence, pass: number): void {
    const { core } = this.#side.processor
    this.#vcpu.set(this.#vcpuBlank)
    const random = new Random(seed * PASSES.length + pass)
    randomState(random, core, codeSize, user)
    aimAtBorders(random, core, codeSize)
    core.set64(S.rip, BigInt(start - codeBase(codeSize)))
    this.#vcpuBefore.set(this.#vcpu)
    this.#settle()
  }
  /** What lies outside the vCPU block follows. */
  #settle(): void {
    const { core } = this.#side.processor
    core.set32(S.generation, core.paging.generation)
    core.pendingDebug = 0
    updateMode(core)
  }

  #run(slice: number): Outcome {
    const { surroundings: { writes }, processor: { core } } = this.#side
    writes.length = 0
    const stop = this.#side.run(slice)
    return { stop, flags: readFlags(core), pendingDebug: core.pendingDebug, devices: writes.length ? JSON.stringify(writes) : '' }
  }

  /** Back to what the pass began with. True: code was written over, and is to be decoded anew. */
  #restore(sequence: Sequence): boolean {
    const { core } = this.#side.processor
    const { start } = this.#side.world
    const vcpu = this.#vcpu
    const changed = CONTROL.some((word) => vcpu[word] !== this.#vcpuBlank[word])
    if (changed) this.#enter(sequence)
    vcpu.set(this.#vcpuBefore)
    this.#settle()
    let overwritten = false
    for (const page of this.#side.world.dirtyPages()) {
      const found = this.#page(page), before = this.#page(page, this.#memory)
      if (page < start + CODE_BYTES) overwritten ||= Buffer.compare(found, before) !== 0
      else if (core.code.hasCode(page)) {
        // A return or jump led among the data: what was decoded there goes with it.
        overwritten ||= found.some((byte, at) => byte !== before[at] && core.code.isCode(page + at, 1))
        core.code.invalidate(page, 4096)
      }
      found.set(before)
    }
    if (overwritten) core.code.invalidate(start, CODE_BYTES)
    return overwritten
  }
  /** Nothing is dirty, nothing in the TLB. */
  #clean(): void {
    const { world } = this.#side
    for (const page of world.dirtyPages()) this.#memoryAfter.set(this.#page(page, this.#memory), page - world.start)
    flushNonGlobal(world.core)
    world.markClean()
  }
  /** The page at an HPA, in memory or a copy of it. */
  #page(page: number, of: Uint8Array = this.#bytes): Uint8Array {
    const at = page - this.#side.world.start
    return of.subarray(at, at + 4096)
  }

  #differences(interpreted: Outcome, compiled: Outcome): string[] {
    const differences: string[] = []
    const check = (name: string, x: string | number | bigint, y: string | number | bigint) => {
      if (x !== y) differences.push(`${name}: interpreter ${x}, compiler ${y}`)
    }
    check('end', show(interpreted.stop), show(compiled.stop))
    check('retired', interpreted.stop.retired, compiled.stop.retired)
    check('rflags', hex(interpreted.flags), hex(compiled.flags))
    check('pending debug exceptions', interpreted.pendingDebug, compiled.pendingDebug)
    check('devices', interpreted.devices, compiled.devices)
    const [left, right] = [this.#vcpuAfter, this.#vcpu]
    if (STATE_WORDS.some((word) => left[word] !== right[word])) {
      const value = (words: Int32Array, { offset, bytes }: { offset: number; bytes: number }) =>
        `0x${(bytes === 8 ? [1, 0] : [0]).map((n) => (words[(offset >>> 2) + n]! >>> 0).toString(16).padStart(8, '0')).join('')}`
      for (const { name, slot } of STATE) if (slot) check(name, value(left, slot), value(right, slot))
    }
    for (const page of this.#side.world.dirtyPages()) {
      const after = this.#page(page, this.#memoryAfter), found = this.#page(page)
      if (Buffer.compare(after, found) === 0) continue
      const at = after.findIndex((byte, n) => byte !== found[n])
      check(`memory at +0x${(page - this.#side.world.start + at).toString(16)}`, after[at]!, found[at]!)
    }
    return differences
  }
}
