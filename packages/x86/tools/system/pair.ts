/** The processor in both tiers against the reference machine, on the same system program, compared where the manual says what is right. */
import { createRegionCompiler, type RegionModule, type RegionRequest, type RegionService } from '../../src/compiler/region-service.ts'
import type { ModuleContext } from '../../src/ir/function.ts'
import { Processor } from '../../src/processor.ts'
import type { Core } from '../../src/state/core.ts'
import { readFlags } from '../../src/state/flags.ts'
import { gpr, S, SEG, SEGMENT, segment } from '../../src/state/layout.ts'
import { setSegment } from '../../src/state/segments.ts'
import { flushAll } from '../../src/paging/index.ts'
import { updatePaging } from '../../src/paging/walk.ts'
import { updateMode } from '../../src/control/update-mode.ts'
import { resetProcessor } from '../../src/control/reset.ts'
import { Random } from '../float/operands.ts'
import { ReferenceMachine } from '../reference/machine.ts'
import { Undefined } from '../reference/translation.ts'
import { Surroundings, type DeviceWrite } from '../tiers/world.ts'
import { ENTRY, layOut, type SystemProgram } from './program.ts'
import { MovingMemory } from './moving-memory.ts'
import { AT, buildWorld, EXTERNAL, KERNEL_STACK, linearOf, RAM, SELECTOR, SYSCALL_ENTRY, TSS_OFFSET } from './world.ts'

/** A program that runs longer is stopped. */
const MOST = 20_000
const FRAMES = 12288
const CODE_CACHE = 16 << 20

const mix = (a: number, b: number): number => Math.imul(a ^ 0x9e37_79b9, b | 1) >>> 7

/** Where the chip finds the guest's memory: from physical address 0 on. */
class SystemSurroundings extends Surroundings {
  start = 0
  override hostAddress(physical: number): number {
    return physical >= 0 && physical + 4096 <= RAM ? this.start + physical : -1
  }
}

/** What both kinds of machine are set to before a program, by slot. */
const START: readonly (readonly [number, bigint])[] = [
  [S.cr0, 0x8001_0033n], [S.cr2, 0n], [S.cr3, linearOf(AT.roots[0]!)], [S.cr4, 0x6a0n], [S.efer, 0xd01n],
  [S.star, (BigInt(SELECTOR.userCode32) << 48n) | (BigInt(SELECTOR.code) << 32n)], [S.lstar, SYSCALL_ENTRY], [S.fmask, 0x4_0700n], [S.kernelGsBase, 0x1000n], [S.rip, ENTRY],
  // The x87 is as after RESET, whose state FSAVE and its like store.
  [S.fpuControl, 0x40n], [S.fpuTag, 0xffn],
]
const SEGMENTS: readonly (readonly [number, number, bigint, number, number])[] = [
  [SEGMENT.cs, SELECTOR.code, 0n, -1, 0xa09b], [SEGMENT.ss, SELECTOR.data, 0n, -1, 0xc093],
  ...[SEGMENT.es, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs].map((n) => [n, SELECTOR.data, 0n, -1, 0xc093] as const),
  [SEGMENT.gdtr, 0, linearOf(AT.gdt), 0x7f, 0], [SEGMENT.idtr, 0, linearOf(AT.idt), 16 * 0x81 - 1, 0], [SEGMENT.ldtr, 0, 0n, 0, 0x1_0000],
  [SEGMENT.tr, SELECTOR.tss, linearOf(AT.tss) + BigInt(TSS_OFFSET), 0x67, 0x8b],
]
const START_FLAGS = 0x202

/** How a run ended, and what is compared; memory and writes are the machine's own, until its next run. */
interface Outcome {
  readonly end: string
  readonly retired: number
  readonly state: ReadonlyMap<string, bigint | number>
  readonly ram: Uint8Array
  readonly writes: readonly DeviceWrite[]
}

const NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')
const WIDE = ['rip', 'cr0', 'cr2', 'cr3', 'cr4', 'efer', 'star', 'lstar', 'fmask', 'kernelGsBase'] as const
const VISIBLE = 0x1_f0ff

/** All that a program can tell, by name; hidden parts of null segments do not count. */
function stateOf(read64: (slot: number) => bigint, read32: (slot: number) => number, flags: number): Map<string, bigint | number> {
  const state = new Map<string, bigint | number>()
  for (const [n, name] of NAMES.entries()) state.set(name, read64(gpr(n)))
  for (const name of WIDE) state.set(name, read64(S[name]))
  state.set('cpl', read32(S.cpl))
  state.set('rflags', flags)
  for (const name of ['es', 'cs', 'ss', 'ds', 'fs', 'gs'] as const) {
    const at = segment(SEGMENT[name])
    state.set(name, read32(at + SEG.selector) & 0xffff)
    const rights = read32(at + SEG.attributes)
    const unusable = (rights & 0x1_0000) !== 0
    state.set(`${name}.rights`, unusable ? 0x1_0000 : rights & VISIBLE)
    if (!unusable) state.set(`${name}.limit`, read32(at + SEG.limit) >>> 0)
    if (!unusable || name === 'fs' || name === 'gs') state.set(`${name}.base`, read64(at + SEG.base))
  }
  return state
}

/** Regions that come back some slices after they were asked for, as those do that are compiled on another thread. */
class LateRegions implements RegionService {
  readonly #compiler = createRegionCompiler()
  readonly #ready: { slices: number; deliver: () => void }[] = []
  /** Slices until a region comes back. */
  delay = 0

  compile(requests: readonly RegionRequest[], context: ModuleContext, done: (result: RegionModule) => void): void {
    const copies = requests.map((request) => ({ ...request, bytes: request.bytes.slice() }))
    this.#compiler.compile(copies, context, (result) => this.#ready.push({ slices: this.delay, deliver: () => done(result) }))
  }
  /** Between two slices. */
  deliver(): void {
    for (const ready of this.#ready) ready.slices--
    while (this.#ready.length && this.#ready[0]!.slices < 0) this.#ready.shift()!.deliver()
  }
}

/** A slice went on beyond where it was to end. */
class Overrun {}
/** Instructions before a given count that are run one by one; the second is more than a region has. */
const MARGINS = [8, 300]

export class Real {
  readonly surroundings = new SystemSurroundings(FRAMES)
  readonly processor: Processor
  readonly #core: Core
  readonly #regions = new LateRegions()
  readonly #moving: MovingMemory

  constructor(compile: boolean) {
    this.processor = new Processor(this.surroundings, { codeCache: CODE_CACHE, compile, regions: this.#regions })
    if (compile) this.processor.blocks.hotness = 2
    this.#core = this.processor.core
    this.surroundings.start = this.#core.memory.allocateFrames(RAM / 4096, 1)!
    this.#moving = new MovingMemory(this.#core, RAM / 4096)
  }

  /** `until`: where the reference stopped. */
  run(program: SystemProgram, ram: Uint8Array, until: number): Outcome {
    for (const margin of MARGINS) {
      this.#margin = margin
      try {
        return this.#run(program, ram, until)
      } catch (error) {
        if (!(error instanceof Overrun)) throw error
      }
    }
    throw new Error('a region is longer than any may be')
  }
  #margin = 0
  /** Instructions between two looks at what waits. */
  #slice = 0
  /** Under EPT: which pages move between two slices. */
  #random: Random | undefined

  #run(program: SystemProgram, ram: Uint8Array, until: number): Outcome {
    const { surroundings, processor } = this
    const core = this.#core
    const { start } = surroundings
    // Of every four programs two meet regions that come late.
    this.#regions.delay = Math.max(0, (program.seed & 3) - 1)
    this.#slice = program.seed & 4 ? 60 : 1000
    surroundings.writes.length = 0
    resetProcessor(core)
    this.#random = program.seed & 8 ? new Random(program.seed) : undefined
    if (this.#random) this.#moving.enter(ram)
    else {
      this.#moving.leave()
      core.u8.set(ram, start)
      core.memory.noteWrite(start as never, RAM)
    }
    for (const [slot, value] of START) core.set64(slot, value)
    for (let n = 0; n < 16; n++) core.set64(gpr(n), BigInt(n) * 0x0101_0101n)
    for (const [n, selector, base, limit, rights] of SEGMENTS) setSegment(core, n, selector, Number(BigInt.asIntN(32, base)), Number(base >> 32n), limit, rights)
    core.set32(S.cpl, 0)
    core.set32(S.flags, START_FLAGS)
    core.set64(gpr(4), KERNEL_STACK)
    updatePaging(core)
    updateMode(core)
    flushAll(core)
    const from = processor.retired
    let end = ''
    for (const at of [...program.interrupts, until]) {
      end = this.#runUntil(from + Math.min(at, until))
      while (!end && processor.retired - from < until && !(core.get32(S.flags) & 0x200 && core.get32(S.shadow) === 0)) end = this.#step()
      if (end || processor.retired - from >= until) break
      end = processor.interrupt(EXTERNAL) ?? ''
      if (end) break
    }
    return {
      end: end || 'stopped', retired: processor.retired - from,
      state: stateOf((slot) => core.get64(slot), (slot) => core.get32(slot), readFlags(core)),
      ram: this.#random ? this.#moving.read() : core.u8.subarray(start, start + RAM), writes: surroundings.writes,
    }
  }

  /** Runs up to exactly that count, or to an end: the last instructions one by one, as regions look at their budget in loops only. */
  #runUntil(retired: number): string {
    const { processor } = this
    while (processor.retired < retired) {
      const before = processor.retired
      const left = retired - before - this.#margin
      const reason = left > 0 ? processor.run(Math.min(left, this.#slice)) : 'budget'
      processor.compiler.flush()
      this.#regions.deliver()
      if (this.#random) this.#moving.move(this.#random)
      // Under EPT a triple fault is an exit.
      if (reason === 'stop') return 'shutdown'
      if (reason !== 'budget' && reason !== 'attention') return reason
      if (processor.retired > retired) throw new Overrun()
      if (processor.retired === before) {
        const end = this.#step()
        if (end) return end
      }
    }
    return ''
  }
  #step(): string {
    const { processor } = this
    const reason = processor.step()
    if (reason === 'stop') return 'shutdown'
    return reason === undefined || reason === 'budget' || reason === 'attention' ? '' : reason
  }
}

/** Stops at the beginning of the action in which the manual promises nothing further. */
export function runReference(m: ReferenceMachine, program: SystemProgram, ram: Uint8Array, boundaries: ReadonlySet<bigint>, writes: DeviceWrite[]): Outcome {
  m.ram.set(ram)
  m.reset()
  new Uint8Array(m.block.buffer).fill(0)
  for (const [slot, value] of START) m.set64(slot, value)
  for (let n = 0; n < 16; n++) m.set64(gpr(n), BigInt(n) * 0x0101_0101n)
  for (const [n, selector, base, limit, rights] of SEGMENTS) m.setSegment(n, selector, base, limit, rights)
  m.flags = START_FLAGS
  m.set64(gpr(4), KERNEL_STACK)
  writes.length = 0
  const waiting = [...program.interrupts]
  let end: string | undefined
  let writesBefore = 0
  m.checkpoint()
  try {
    while (!end && m.retired < MOST) {
      if (waiting.length && m.retired >= waiting[0]! && m.isOpen) {
        waiting.shift()
        end = m.event({ kind: 'external', vector: EXTERNAL })
      } else {
        if (boundaries.has(m.get64(S.rip))) {
          m.checkpoint()
          writesBefore = writes.length
        }
        end = m.step()
      }
    }
  } catch (error) {
    if (!(error instanceof Undefined)) throw error
    m.rollBack()
    writes.length = writesBefore
  }
  return { end: end ?? 'stopped', retired: m.retired, state: stateOf((slot) => m.get64(slot), (slot) => m.get32(slot), m.flags), ram: m.ram, writes }
}

export interface Difference {
  readonly tier: 'interpreter' | 'compiler'
  readonly lines: readonly string[]
}

export class SystemPair {
  readonly #ram = new Uint8Array(RAM)
  readonly #writes: DeviceWrite[] = []
  readonly reference = new ReferenceMachine(RAM, {
    read: (physical, size) => mix(physical, size),
    write: (address, size, value) => this.#writes.push({ address, size, value }),
  })
  readonly interpreter = new Real(false)
  readonly compiler = new Real(true)
  /** Programs by how they ended. */
  readonly endings = new Map<string, number>()
  instructions = 0

  /** Undefined: no difference, or nothing to compare. */
  run(program: SystemProgram): Difference | undefined {
    const ram = this.#ram
    buildWorld(ram, new Random(program.seed ^ 0x5eed))
    const expected = runReference(this.reference, program, ram, layOut(program, ram), this.#writes)
    this.#count(expected.end)
    this.instructions += expected.retired
    for (const tier of ['interpreter', 'compiler'] as const) {
      const lines = compare(expected, this[tier].run(program, ram, expected.retired + (expected.end === 'stopped' ? 0 : 1)))
      if (lines.length) return { tier, lines }
    }
    return undefined
  }
  #count(ending: string): void {
    this.endings.set(ending, (this.endings.get(ending) ?? 0) + 1)
  }
}

function compare(expected: Outcome, actual: Outcome): string[] {
  const lines: string[] = []
  const check = (name: string, a: unknown, b: unknown): void => {
    if (a !== b) lines.push(`${name}: expected ${hex(a)}, is ${hex(b)}`)
  }
  check('end', expected.end, actual.end)
  check('retired', expected.retired, actual.retired)
  // After a shutdown no program sees anything but memory.
  if (expected.end !== 'shutdown') for (const [name, value] of expected.state) check(name, value, actual.state.get(name))
  if (Buffer.compare(expected.ram, actual.ram) !== 0) {
    for (let at = 0, told = 0; at < RAM && told < 6; at += 8) {
      const [a, b] = [expected.ram, actual.ram].map((ram) => new DataView(ram.buffer, ram.byteOffset).getBigUint64(at, true))
      if (a !== b) {
        told++
        check(`memory at 0x${at.toString(16)}`, a, b)
      }
    }
  }
  check('device writes', JSON.stringify(expected.writes), JSON.stringify(actual.writes))
  return lines
}
const hex = (value: unknown): string => (typeof value === 'bigint' || typeof value === 'number' ? `0x${value.toString(16)}` : String(value))
