/** Two processors that differ in one option, run on the same program from the same state, and compared. */
import type { Core } from '../../src/core.ts'
import { createRegionCompiler } from '../../src/compiler/region-service.ts'
import { verify } from '../../src/ir/verify.ts'
import type { Built } from '../../src/lower/function-module.ts'
import { Processor, type StopReason } from '../../src/processor.ts'
import { EXIT, gpr, S, SEG, SEGMENT, segment } from '../../src/state/layout.ts'
import { readFlags } from '../../src/state/flags.ts'
import { PROCEED, SECOND_STAGE, type NonRoot } from '../../src/system/intercept.ts'
import { Random } from '../float/operands.ts'
import { layOut, type Program } from './program.ts'
import { randomState } from './state.ts'
import { Surroundings, World } from './world.ts'

const FRAMES = 12288
const CODE_CACHE = 16 << 20
/** A chunk that runs longer has no end. */
const MOST_INSTRUCTIONS = 30_000

/** Variables of regions that count on being zero at first. */
const ZEROED: ReadonlySet<string> = new Set(['lazyLeft', 'lazyRight', 'lazyResult', 'next', 'goal'])

/** How a run came to its end. */
interface Stop {
  reason: StopReason | 'endless'
  /** Exception, triple fault or task switch that ended it. */
  event: string
  retired: number
}

/** Nothing is compiled that the verifier objects to. */
function verifyRegion({ root }: Built): void {
  const problems = verify(root, { params: 2, deadCode: true, mayBeUnset: ({ name }) => ZEROED.has(name) })
  if (problems.length) throw new Error(`a region is not well formed:\n  ${problems.slice(0, 5).join('\n  ')}`)
}

class Side {
  readonly surroundings = new Surroundings(FRAMES)
  readonly processor: Processor
  readonly world: World
  #event = ''

  constructor(compile: boolean) {
    this.processor = new Processor(this.surroundings, { codeCache: CODE_CACHE, compile, regions: createRegionCompiler(verifyRegion) })
    if (compile) this.processor.blocks.hotness = 2
    const { core } = this.processor
    this.world = new World(core, this.surroundings)
    core.nonRoot = this.#hooks(core)
  }

  /** Every exception ends the run. */
  #hooks(core: Core): NonRoot {
    const stop = (event: string) => {
      this.#event = event
      core.set32(S.exit, EXIT.stop)
    }
    return {
      intercept: () => PROCEED,
      exception: (_core, vector, errorCode) => {
        // INT3, INTO and INT1 ask from within, when the RIP slot is not theirs yet; single steps cannot be told from INT1.
        if (vector === 3 || vector === 4) core.set64(S.rip, core.recordRip())
        else if (vector === 1) core.set64(S.rip, 0n)
        stop(`exception ${vector}(${errorCode.toString(16)})${vector === 14 ? ` at ${address(core)}` : ''}`)
        return true
      },
      eptViolation: () => SECOND_STAGE.retry,
      eptMisconfiguration: () => SECOND_STAGE.retry,
      taskSwitch: (_core, selector) => {
        stop(`task switch to ${selector.toString(16)}`)
        return 1
      },
      tripleFault: () => stop('triple fault'),
    }
  }

  /** Runs until something ends it. `slice`: instructions between two looks at what waits. */
  run(slice: number): Stop {
    const { processor } = this
    this.#event = ''
    const from = processor.retired
    for (let before = 0; ; ) {
      let reason = processor.run(slice)
      // A slice shorter than the block that comes next gets nowhere.
      if (reason === 'budget' && processor.retired === before) reason = processor.step() ?? 'budget'
      before = processor.retired
      processor.compiler.flush()
      const retired = before - from
      if (reason !== 'budget' && reason !== 'attention') return { reason, event: this.#event, retired }
      if (retired > MOST_INSTRUCTIONS) return { reason: 'endless', event: '', retired }
    }
  }
}

const address = (core: Core): string => ((BigInt(core.paging.faultHigh >>> 0) << 32n) | BigInt(core.paging.faultLow >>> 0)).toString(16)

export interface Mismatch {
  readonly pass: number
  readonly chunk: number
  readonly differences: readonly string[]
}

const PASSES = 4

export class Pair {
  readonly interpreter = new Side(false)
  readonly compiled = new Side(true)
  /** Instructions run on the interpreter's side. */
  instructions = 0
  /** Runs by how they ended. */
  readonly endings = new Map<string, number>()
  readonly #memory: Uint8Array

  constructor(seed: number) {
    const { start, end } = this.interpreter.world
    if (start !== this.compiled.world.start) throw new Error('the two worlds lie apart')
    this.interpreter.world.fill(new Random(seed))
    this.#memory = this.interpreter.world.bytes.slice()
  }
  get sides(): readonly Side[] {
    return [this.interpreter, this.compiled]
  }

  /** Runs a program: the same first state twice, so that its code gets hot, then others. Undefined: no difference. */
  run(program: Program): Mismatch | undefined {
    const { bytes, addresses } = layOut(program)
    for (const { world } of this.sides) {
      world.bytes.set(this.#memory)
      world.core.u8.set(bytes, world.host(program.start))
      world.noteAll()
    }
    for (let pass = 0; pass < PASSES; pass++) {
      for (const [n, first] of program.chunks.entries()) {
        const state = program.seed * 64 + n * 8 + (pass < 2 ? 0 : pass)
        const slice = pass === 0 ? 64 : pass === 3 ? 37 : 1000
        const stops = this.sides.map((side) => {
          side.surroundings.writes.length = 0
          const { world } = side
          world.enter(program.codeSize, program.user, program)
          randomState(new Random(state), world.core, program.codeSize, program.user)
          world.core.set64(S.rip, BigInt(addresses[first]! - (program.codeSize === 16 ? 0x40_0000 : 0)))
          return side.run(slice)
        }) as [Stop, Stop]
        this.instructions += stops[0].retired
        if (stops.some(({ reason }) => reason === 'endless')) {
          // Where it was cut off is not the same place on both sides.
          this.#count('endless')
          const first = Math.min(...stops.map(({ retired }) => retired))
          if (stops[0].reason !== stops[1].reason && first < MOST_INSTRUCTIONS / 2) return { pass, chunk: n, differences: [`interpreter ${show(stops[0])}, compiler ${show(stops[1])}`] }
          return undefined
        }
        this.#count(stops[0].event.replace(/\(.*/, '') || stops[0].reason)
        const differences = this.#compare(stops)
        if (!differences.length) continue
        if (!this.#overwroteRepeat(program, bytes, addresses)) return { pass, chunk: n, differences }
        this.#count('repeat over itself')
        return undefined
      }
    }
    return undefined
  }

  /** A repeated string instruction that writes over itself goes on as it was, or is fetched anew: it depends on where slices end. */
  #overwroteRepeat(program: Program, bytes: Uint8Array, addresses: readonly number[]): boolean {
    return program.items.some((item, n) => {
      if (!item?.repeats) return false
      const at = addresses[n]! - program.start
      return this.sides.some(({ world }) => {
        const host = world.host(addresses[n]!)
        return item.bytes.some((_, i) => world.core.u8[host + i] !== bytes[at + i])
      })
    })
  }

  #count(ending: string): void {
    this.endings.set(ending, (this.endings.get(ending) ?? 0) + 1)
  }

  #compare(stops: readonly [Stop, Stop]): string[] {
    const [a, b] = this.sides.map((side) => side.processor.core) as [Core, Core]
    const differences: string[] = []
    const check = (name: string, x: unknown, y: unknown) => {
      if (x !== y) differences.push(`${name}: interpreter ${String(x)}, compiler ${String(y)}`)
    }
    check('end', show(stops[0]), show(stops[1]))
    check('retired', stops[0].retired, stops[1].retired)
    for (const { name, read } of STATE) {
      const x = read(a), y = read(b)
      if (x !== y) check(name, hex(x), hex(y))
    }
    const [left, right] = this.sides.map(({ world }) => world.bytes) as [Uint8Array, Uint8Array]
    if (Buffer.compare(left, right) !== 0) {
      const at = left.findIndex((byte, n) => byte !== right[n])
      check(`memory at +0x${at.toString(16)}`, left[at], right[at])
    }
    check('devices', JSON.stringify(this.interpreter.surroundings.writes), JSON.stringify(this.compiled.surroundings.writes))
    return differences
  }
}

const show = ({ reason, event }: Stop): string => (event ? `${reason}, ${event}` : reason)
const hex = (value: bigint | number): string => `0x${value.toString(16)}`

/** Everything architectural in the vCPU block, but for the interrupt shadow, which may outlast its instruction: who asks steps over it. */
interface Part {
  readonly name: string
  readonly read: (core: Core) => bigint | number
}
const wide = (name: string, offset: number): Part => ({ name, read: (core) => core.get64(offset) })
const word = (name: string, offset: number): Part => ({ name, read: (core) => core.get32(offset) >>> 0 })
const GPR_NAMES = 'rax rcx rdx rbx rsp rbp rsi rdi r8 r9 r10 r11 r12 r13 r14 r15'.split(' ')

const STATE: readonly Part[] = [
  ...GPR_NAMES.map((name, n) => wide(name, gpr(n))),
  wide('rip', S.rip),
  { name: 'rflags', read: readFlags },
  ...Object.entries(SEGMENT).flatMap(([name, n]) => [
    wide(`${name}.base`, segment(n) + SEG.base), word(`${name}.limit`, segment(n) + SEG.limit),
    word(`${name}.selector`, segment(n) + SEG.selector), word(`${name}.attributes`, segment(n) + SEG.attributes),
    wide(`${name}.readBound`, segment(n) + SEG.readBound), wide(`${name}.writeBound`, segment(n) + SEG.writeBound),
  ]),
  ...Array.from({ length: 32 }, (_, n) => wide(`xmm${n >> 1}[${n & 1}]`, S.xmm + 8 * n)),
  ...Array.from({ length: 16 }, (_, n) => wide(`fpr${n >> 1}${n & 1 ? ' exponent' : ''}`, S.fpr + 8 * n)),
  ...(['cr0', 'cr2', 'cr3', 'cr4', 'cr8', 'efer', 'xcr0', 'dr0', 'dr1', 'dr2', 'dr3', 'dr6', 'dr7', 'star', 'lstar', 'cstar', 'fmask', 'kernelGsBase', 'sysenterCs', 'sysenterEsp', 'sysenterEip', 'pat', 'tscAux', 'apicBase', 'miscEnable', 'tscOffset', 'fpuIp', 'fpuDp'] as const).map((name) => wide(name, S[name])),
  ...(['cpl', 'mode', 'fpuControl', 'fpuStatus', 'fpuTag', 'fpuOpcode', 'fpuSelectors', 'mxcsr', 'lazyKind', 'nmiBlocked'] as const).map((name) => word(name, S[name])),
  { name: 'pending debug exceptions', read: (core) => core.pendingDebug },
]
