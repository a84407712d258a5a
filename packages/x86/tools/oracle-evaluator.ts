/**
 * Oracle: every handler's IR passes the verifier, and the plain evaluator of IR and the WebAssembly made of it turn equal states into
 * equal states. Every row, in every shape that random encodings meet.
 *
 *     node --conditions=@nonroot/source packages/x86/tools/oracle-evaluator.ts [--encodings 6] [--states 3] [--seed 1] [--row PATTERN] [--show]
 */
import type { Signature } from '../src/ir/function.ts'
import { parseArgs } from 'node:util'
import { Core } from '../src/state/core.ts'
import { disassemble } from '../src/decode/disassemble.ts'
import { REFILL_TYPE, refillBody } from '../src/code/refill.ts'
import { floatImports } from '../src/float/imports.ts'
import { BlockCache } from '../src/code/blocks.ts'
import { HandlerBuilder } from '../src/interpreter/handler-builder.ts'
import { QUICK_FILL_TYPE } from '../src/paging/tlb/quick-fill.ts'
import { Handlers, type HandlerImport } from '../src/interpreter/handlers.ts'
import { BLOCK_TABLE_SIZE } from '../src/code/block-table.ts'
import { RECORD } from '../src/state/record.ts'
import { evaluate } from '../src/ir/evaluate.ts'
import type { Body } from '../src/ir/nodes.ts'
import { verify } from '../src/ir/verify.ts'
import { slowModify, slowRead, slowWrite } from '../src/paging/index.ts'
import { flushAll } from '../src/paging/tlb/tlb.ts'
import { exportedModule } from '../src/backend/function-module.ts'
import { rows, type Row } from '../src/rows/index.ts'
import { semantics } from '../src/semantics/index.ts'
import { checkSegment } from '../src/state/segments.ts'
import { CHUNK } from '../src/state/slice.ts'
import { EXIT, S, SEGMENT, VCPU_SIZE, VCPU_TOTAL } from '../src/state/layout.ts'
import { stackSizeOf } from '../src/state/mode.ts'
import { resetProcessor } from '../src/control/reset.ts'
import { exitOf } from '../src/rows/exits.ts'
import { Random } from './float/operands.ts'
import { encode, type Encoded } from './tiers/encode.ts'
import { aim, plainPlace, randomState } from './tiers/state.ts'
import { CODE, DATA, dataBase, PLAIN_PAGES, Surroundings, World, type CodeSize } from './tiers/world.ts'

const { values } = parseArgs({
  options: { encodings: { type: 'string' }, states: { type: 'string' }, seed: { type: 'string' }, row: { type: 'string' }, show: { type: 'boolean' } },
})
const encodings = Number(values.encodings ?? 6)
const states = Number(values.states ?? 3)
const seed = Number(values.seed ?? 1)

/** Where the handler that stands behind every instruction leaves its mark. Unused by the processor. */
const MARK = 0x840
const ARENA = 8 << 20

const surroundings = new Surroundings(8192)
const { memory } = surroundings
const core = new Core(surroundings, memory.allocateFrames(Math.ceil(VCPU_TOTAL / 4096), 1)!)
const slow = (f: (core: Core, info: number) => number): HandlerImport => ({
  params: ['i32', 'i32'], results: ['i32'], function: (_cpu: number, info: number) => f(core, info),
})
/** What every system routine answers for the state at hand. */
let outcome = 0
const routines: string[] = []
const imports: Record<string, HandlerImport> = {
  slowRead: slow(slowRead),
  slowWrite: slow(slowWrite),
  slowModify: slow(slowModify),
  slowReadOfCompiled: slow(slowRead),
  slowWriteOfCompiled: slow(slowWrite),
  slowModifyOfCompiled: slow(slowModify),
  checkSegment: slow(checkSegment),
  system: {
    params: ['i32', 'i32', 'i32'],
    results: ['i32'],
    function: (_cpu: number, record: number, id: number) => {
      core.set32(S.record, record)
      core.set32(S.vector, id)
      return outcome
    },
  },
  ...floatImports(memory.memory),
}
const context = {
  systemRoutine: (name: string) => {
    const known = routines.indexOf(name)
    return known >= 0 ? known : routines.push(name) - 1
  },
  exitOf: (instruction: { row: Row }) => exitOf(instruction.row),
}
const handlers = new Handlers({ memory: memory.memory, imports, ...context })
const table = memory.allocateFrames(BLOCK_TABLE_SIZE / 4096, 1)!
const blocks = new BlockCache(core, handlers, { start: memory.allocateFrames(ARENA / 4096, 1)!, size: ARENA }, table)
core.code = blocks
// The map of code is empty: JavaScript, which both sides call, fills the TLB.
core.set32(S.codeHolders, 0)
resetProcessor(core)
const world = new World(core, surroundings)
const random = new Random(seed)
world.fill(random)

const marker = new HandlerBuilder({ row: rows[0]! } as never, 64, false, context)
marker.setSlot(MARK, marker.record)
marker.return()
const stop = handlers.install(new WebAssembly.Module(exportedModule([marker], handlers.moduleContext)), 1)[0]!

// --- shapes ---

interface Mode {
  readonly name: string
  readonly codeSize: CodeSize
  readonly user: boolean
  readonly stack16: boolean
}
const MODES: readonly Mode[] = [
  { name: '64', codeSize: 64, user: false, stack16: false },
  { name: '64 user', codeSize: 64, user: true, stack16: false },
  { name: '32', codeSize: 32, user: false, stack16: false },
  { name: '32/SP', codeSize: 32, user: true, stack16: true },
  { name: '16', codeSize: 16, user: false, stack16: false },
]

interface Shape {
  readonly encoded: Encoded
  readonly index: number
  readonly body: Body
  readonly flagsDead: boolean
}

const TYPES: Readonly<Record<string, Signature>> = {
  dispatch: { params: ['i32', 'i32'], results: [] },
  settleFlags: { params: ['i32', 'i32'], results: [] },
  quickFill: QUICK_FILL_TYPE,
  refill: REFILL_TYPE,
}
const signature = (name: string): Signature | undefined => TYPES[name] ?? imports[name]

const refill = refillBody()
let problems = 0
function complain(what: string): void {
  if (++problems <= 20) console.error(what)
}

function shapeOf(encoded: Encoded, mode: number, flagsDead: boolean, known: Set<number>): Shape | undefined {
  const { instruction } = encoded
  const index = handlers.of(instruction, mode, flagsDead)
  if (known.has(index)) return undefined
  known.add(index)
  const b = new HandlerBuilder(instruction, stackSizeOf(mode), flagsDead, context)
  semantics[instruction.row.semantics]!(b, ...b.operands)
  b.next()
  const wrong = verify(b.root, { params: 2, signature })
  if (wrong.length) complain(`${disassemble(instruction)} [${instruction.row.encoding}] in mode 0x${mode.toString(16)}:\n  ${wrong.slice(0, 4).join('\n  ')}`)
  return { encoded, index, body: b.root, flagsDead }
}

// --- running ---

const block = () => core.u8.subarray(core.base, core.base + VCPU_SIZE)

/** Calls an import as the evaluator does: bit patterns in and out. */
function call(callee: string, args: readonly bigint[]): bigint | undefined {
  if (callee === 'quickFill') return 0n
  if (callee === 'refill') {
    const end = evaluate(refill.root, args.map(Number), { memory: memory.view, call })
    return end.kind === 'return' ? end.value : undefined
  }
  const { params, results, function: f } = imports[callee]!
  const given = args.map((arg, i) => (params[i] === 'i32' ? Number(BigInt.asIntN(32, arg)) : BigInt.asIntN(64, arg)))
  const result = (f as (...args: unknown[]) => number | bigint)(...given)
  return results.length ? BigInt.asUintN(results[0] === 'i32' ? 32 : 64, BigInt(result)) : undefined
}

function runEvaluator(body: Body, record: number): void {
  const end = evaluate(body, [core.base, record], { memory: memory.view, call })
  if (end.kind === 'return') return
  if (end.kind === 'tailCall') {
    if (end.callee !== 'dispatch') throw new Error(`tail call of ${end.callee}`)
    // Nothing was ever fetched here: dispatch does not find its page.
    core.set32(S.exit, EXIT.lookup)
  } else if (end.target === stop) core.set64(MARK, (BigInt(core.get32(MARK + 4) >>> 0) << 32n) | BigInt(end.args[1]! >>> 0))
  else throw new Error(`tail call of function ${end.target}`)
}

/** The TLB before each run: empty, or with the plain pages of data in it. */
function warm(hit: boolean): void {
  flushAll(core)
  if (!hit) return
  for (let page = 0; page < PLAIN_PAGES; page++) {
    core.set64(S.address, BigInt(DATA + page * 4096))
    core.set32(S.value, core.view.getInt32(world.data + page * 4096, true))
    slowWrite(core, 4 | (SEGMENT.ds << 8))
  }
}

function firstDifference(a: Uint8Array, b: Uint8Array): string {
  if (Buffer.compare(a, b) === 0) return ''
  for (let n = 0; n < a.length; n++)
    if (a[n] !== b[n]) {
      const at = n & ~7
      const show = (x: Uint8Array) => Buffer.from(x.subarray(at, at + 8)).reverse().toString('hex')
      return `at 0x${at.toString(16)}: evaluator ${show(a)}, wasm ${show(b)}`
    }
  return ''
}

let runs = 0
const before = new Uint8Array(world.bytes.length)
const after = new Uint8Array(world.bytes.length)
const vcpu = new Uint8Array(VCPU_SIZE)
const ip = 0x80

function compare({ encoded, body, index, flagsDead }: Shape, mode: Mode): void {
  const { instruction, code } = encoded
  randomState(random, core, mode.codeSize, mode.user)
  aim(random, core, instruction, mode.codeSize)
  if (mode.codeSize !== 64 && random.below(8) === 0) core.set64(0x100 + 48 * random.below(6) + 8, 0x4000n) // a short read bound
  outcome = random.below(3)
  core.set64(S.rip, 0n)
  core.set64(S.ripPage, BigInt(mode.codeSize === 16 ? 0 : CODE))
  core.set32(S.budget, 100)
  core.set32(S.reserve, random.below(2) * CHUNK)
  core.set32(S.exit, EXIT.none)
  core.set64(MARK, 0n)
  core.u8.set(code, world.code + ip)
  const decoded = blocks.decode(world.code + ip, core.get32(S.mode), () => -1, 1)
  if (!decoded) throw new Error('no fetch fault can be here')
  blocks.release(decoded)
  const record = decoded.first + RECORD.size
  core.i32[(record + RECORD.handler) >>> 2] = index
  core.i32[(record + RECORD.size + RECORD.handler) >>> 2] = stop
  const hit = random.below(2) === 1
  warm(hit)
  const { lastGeneration } = core.paging
  vcpu.set(block())
  before.set(world.bytes)
  surroundings.writes.length = 0

  handlers.enter(core.base, decoded.first)
  const wasmBlock = block().slice()
  after.set(world.bytes)
  const wasmWrites = JSON.stringify(surroundings.writes)

  world.bytes.set(before)
  warm(hit)
  core.paging.lastGeneration = lastGeneration
  block().set(vcpu)
  surroundings.writes.length = 0
  // Entering the block takes its one instruction off the budget.
  core.set32(S.budget, 99)
  runEvaluator(body, record)
  // The heat of the entry record is no matter; the arena lies outside both pieces.
  const difference = firstDifference(block(), wasmBlock) || firstDifference(world.bytes, after)
  const writes = JSON.stringify(surroundings.writes)
  runs++
  if (!difference && writes === wasmWrites) return
  const text = `${disassemble(instruction)} [${instruction.row.mnemonic} ${instruction.row.encoding}], ${mode.name} bit, ${Buffer.from(code).toString('hex')}${flagsDead ? ', flags dead' : ''}`
  complain(`${text}\n  ${difference || `devices: evaluator ${writes}, wasm ${wasmWrites}`}`)
  if (values.show) console.error(body)
}

// --- all rows ---

const started = performance.now()
let shapes = 0
const wanted = rows.filter((row) => semantics[row.semantics] && (!values.row || new RegExp(values.row, 'i').test(row.mnemonic)))
const met = new Set<Row>()
for (const mode of MODES) {
  const known = new Set<number>()
  world.enter(mode.codeSize, mode.user, { stack16: mode.stack16 })
  const key = core.get32(S.mode)
  const list: Shape[] = []
  for (const row of wanted)
    for (let n = 0; n < encodings; n++) {
      const encoded = encode(random, row, {
        codeSize: mode.codeSize,
        addressing: (size) => (random.below(6) === 0 ? { kind: 'absolute', displacement: size === 16 ? random.below(0x8000) : plainPlace(random) - dataBase(mode.codeSize) } : undefined),
      })
      if (!encoded) continue
      met.add(row)
      for (const flagsDead of [false, true]) {
        const shape = shapeOf(encoded, key, flagsDead, known)
        if (shape) list.push(shape)
      }
    }
  handlers.flush()
  shapes += list.length
  for (const shape of list) for (let n = 0; n < states; n++) {
    if (n) world.fill(random)
    world.enter(mode.codeSize, mode.user, { stack16: mode.stack16 })
    compare(shape, mode)
  }
}
const unmet = wanted.filter((row) => !met.has(row))
if (unmet.length) complain(`no encoding was found of ${unmet.map((row) => `${row.mnemonic} ${row.encoding}`).join(', ')}`)
console.log(`${wanted.length} rows, ${shapes} shapes, ${runs} runs, ${problems} problems, ${Math.round(performance.now() - started)} ms, seed ${seed}`)
process.exitCode = problems ? 1 : 0
