/**
 * Guest instructions per second of the interpreter tier and of the compiler tier, beside QEMU's user-mode emulation (TCG) where that
 * is installed, on the same code in the same run: a hot loop, and a random mix spread over thousands of blocks.
 *
 *     node --conditions=@nonroot/source packages/x86/tools/bench-interpreter.ts [--seconds 3] [--blocks 4000] [--only hot|mix] [--tier interpreter|compiler]
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
// As the command sets V8 (packages/host-node/src/tune.ts), but that warm code reaches its optimising tier within seconds. Before the first compile.
for (const flag of ['--wasm-tiering-budget=200000', '--experimental-wasm-branch-hinting', '--no-wasm-stack-checks']) setFlagsFromString(flag)
import { Processor } from '../src/processor.ts'
import { updatePaging } from '../src/paging/walk.ts'
import { rows, type Row } from '../src/rows/index.ts'
import { S, SEGMENT } from '../src/state/layout.ts'
import { setSegment } from '../src/state/segments.ts'
import { RIGHTS } from '../src/state/register-bits.ts'
import { updateMode } from '../src/control/update-mode.ts'
import { Random } from './float/operands.ts'
import { encode } from './tiers/encode.ts'
import { Surroundings } from './tiers/world.ts'

const { values } = parseArgs({
  options: { seconds: { type: 'string' }, blocks: { type: 'string' }, only: { type: 'string' }, tier: { type: 'string' } },
})
const seconds = Number(values.seconds ?? 3)
const blockCount = Number(values.blocks ?? 4000)

const CODE = 0x40_0000
const DATA = 0x80_0000
const DATA_SIZE = 0x1_0000
const MEGABYTES = 2 << 20

// --- the code ---

interface Code {
  readonly name: string
  readonly bytes: number[]
  /** Where the 64-bit number of rounds is. */
  readonly roundsAt: number
}
const little = (value: number, size: number): number[] => Array.from({ length: size }, (_, n) => (value >> (8 * n)) & 0xff)

/** R14 = data, R15 = rounds, RSP = a stack in the data, the others 0. */
const HEAD = [
  ...[0x31, 0xc0, 0x31, 0xc9, 0x31, 0xd2, 0x31, 0xdb, 0x31, 0xed, 0x31, 0xf6, 0x31, 0xff], // XOR of EAX, ECX, EDX, EBX, EBP, ESI, EDI
  ...[8, 9, 10, 11, 12, 13].flatMap((n) => [0x45, 0x31, 0xc0 | ((n & 7) << 3) | (n & 7)]),
  0x41, 0xbe, ...little(DATA, 4),
  0xbc, ...little(DATA + DATA_SIZE + 0x8000, 4),
  0x49, 0xbf, ...little(0, 8),
]
const ROUNDS_AT = HEAD.length - 8
/** DEC R15; JNZ to an offset; exit(0) as Linux has it. */
function tail(at: number, to: number): number[] {
  return [0x49, 0xff, 0xcf, 0x0f, 0x85, ...little(to - (at + 9), 4), 0xb8, 60, 0, 0, 0, 0x31, 0xff, 0x0f, 0x05]
}

function hotLoop(): Code {
  const bytes = [...HEAD]
  const start = bytes.length
  bytes.push(
    0x49, 0x8b, 0x04, 0xce, // MOV RAX, [R14+RCX*8]
    0x48, 0x01, 0xc3, // ADD RBX, RAX
    0x49, 0x89, 0x9c, 0xce, ...little(0x1000, 4), // MOV [R14+RCX*8+1000H], RBX
    0x48, 0xff, 0xc1, // INC RCX
    0x81, 0xe1, ...little(0xff, 4), // AND ECX, FFH
  )
  bytes.push(...tail(bytes.length, start))
  return { name: 'hot', bytes, roundsAt: ROUNDS_AT }
}

/** How often what comes, in about the shares of compiled integer code. */
const MIX: readonly (readonly [weight: number, mnemonics: RegExp, memory: boolean])[] = [
  [16, /^MOV$/, false], [22, /^MOV$/, true], [4, /^MOV[ZS]X$/, false], [5, /^MOVZX$/, true], [7, /^LEA$/, true],
  [14, /^(ADD|SUB|AND|OR|XOR)$/, false], [5, /^(ADD|SUB|AND|OR|XOR)$/, true], [7, /^(CMP|TEST)$/, false], [4, /^(CMP|TEST)$/, true],
  [4, /^(SHL|SHR|SAR)$/, false], [2, /^(INC|DEC|NEG|NOT)$/, false], [1, /^IMUL$/, false], [1, /^(SETE|SETB|SETL)$/, false],
  [2, /^(CMOVE|CMOVB|CMOVL)$/, false], [1, /^(ADC|SBB)$/, false],
  [2, /^(MOVAPS|PXOR|PADDD|PAND|PCMPEQB)$/, false], [1, /^(MOVUPS|MOVDQU)$/, true],
]
const FREE = [0, 1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 13]
const plain = (row: Row): boolean =>
  row.attributes.cpl === undefined && !row.attributes.undocumented && !row.attributes.exit && row.attributes.unit !== 'mmx' && row.attributes.flow === undefined && !row.operands.some(({ kind, size }) => 'OSCD'.includes(kind) || size === 'w')

/** Blocks strewn over the code and joined by branches: forward by condition, on by jumps, into small routines by calls. */
function randomMix(): Code {
  const random = new Random(7)
  const pools = MIX.map(([, mnemonics]) => rows.filter((row) => mnemonics.test(row.mnemonic) && plain(row)))
  const total = MIX.reduce((sum, [weight]) => sum + weight, 0)
  const one = (): number[] => {
    let at = random.below(total)
    const kind = MIX.findIndex(([weight]) => (at -= weight) < 0)
    const memory = MIX[kind]![2]
    for (;;) {
      const encoded = encode(random, random.pick(pools[kind]!), {
        codeSize: 64, memory, plain: true, register: () => random.pick(FREE),
        addressing: () => ({ kind: 'base', base: 14, index: -1, scale: 0, displacement: random.below(DATA_SIZE / 8) * 8 }),
      })
      if (encoded && encoded.instruction.isMemory === memory && !encoded.instruction.lock) return [...encoded.code]
    }
  }
  const some = (count: number): number[] => Array.from({ length: count }, one).flat()
  // Order of run against order of place.
  const place = Array.from({ length: blockCount }, (_, n) => n)
  for (let n = blockCount - 1; n > 0; n--) {
    const m = random.below(n + 1)
    ;[place[n], place[m]] = [place[m]!, place[n]!]
  }
  const bytes = [...HEAD]
  /** Where a 32-bit displacement is to lead: to the start of the block that runs `to`-th. */
  const links: { at: number; to: number }[] = []
  const starts: number[] = []
  const link = (to: number) => {
    links.push({ at: bytes.length, to })
    bytes.push(0, 0, 0, 0)
  }
  bytes.push(0xe9)
  link(0)
  const routines: number[] = []
  for (const turn of place) {
    if (random.below(8) === 0) {
      routines.push(bytes.length)
      bytes.push(...some(2 + random.below(4)), 0xc3)
    }
    starts[turn] = bytes.length
    bytes.push(...some(2 + random.below(6)))
    if (routines.length && random.below(5) === 0) bytes.push(0xe8, ...little(random.pick(routines) - (bytes.length + 5), 4))
    if (turn + 2 < blockCount && random.below(3)) {
      bytes.push(...some(1 + random.below(2)), 0x0f, 0x80 | random.below(16))
      link(turn + 2)
    }
    bytes.push(0xe9)
    link(turn + 1)
  }
  starts[blockCount] = bytes.length
  bytes.push(...tail(bytes.length, starts[0]!))
  for (const { at, to } of links) bytes.splice(at, 4, ...little(starts[to]! - (at + 4), 4))
  return { name: 'mix', bytes, roundsAt: ROUNDS_AT }
}

function image({ bytes, roundsAt }: Code, rounds: number): Uint8Array {
  const code = Uint8Array.from(bytes)
  new DataView(code.buffer).setBigUint64(roundsAt, BigInt(rounds), true)
  return code
}

// --- our processor ---

function machine(code: Code, compile: boolean): Processor {
  const surroundings = new Surroundings(49152)
  surroundings.guest = { start: 0, end: surroundings.memory.bytes.length }
  const processor = new Processor(surroundings, { compile })
  const { core } = processor
  const { memory } = surroundings
  const area = memory.allocateFrames((2 * MEGABYTES) / 4096, MEGABYTES / 4096)!
  const tables = memory.allocateFrames(3, 1)!
  const entry = (at: number, index: number, value: number) => core.view.setBigUint64(at + 8 * index, BigInt(value), true)
  entry(tables, 0, (tables + 4096) | 7)
  entry(tables + 4096, 0, (tables + 8192) | 7)
  entry(tables + 8192, CODE >>> 21, area | 0x87)
  entry(tables + 8192, DATA >>> 21, (area + MEGABYTES) | 0x87)
  core.u8.set(image(code, 2 ** 50), area)
  core.set64(S.cr3, BigInt(tables))
  core.set64(S.cr0, 0x8001_0033n)
  core.set64(S.cr4, 0x620n)
  core.set64(S.efer, 0xd01n)
  const rights = RIGHTS.user | RIGHTS.present | 0x60 | RIGHTS.accessed | RIGHTS.readWrite | RIGHTS.granular
  for (const n of [SEGMENT.es, SEGMENT.ss, SEGMENT.ds, SEGMENT.fs, SEGMENT.gs]) setSegment(core, n, 0x2b, 0, 0, -1, rights | RIGHTS.big)
  setSegment(core, SEGMENT.cs, 0x33, 0, 0, -1, rights | RIGHTS.code | RIGHTS.long)
  core.set32(S.cpl, 3)
  core.set64(S.rip, BigInt(CODE))
  updatePaging(core)
  updateMode(core)
  return processor
}

const SLICE = 1_000_000

/** Time this thread has had, in ms: others on the machine do not count. */
const threadTime = (): number => {
  const { user, system } = process.threadCpuUsage()
  return (user + system) / 1000
}

function runFor(processor: Processor, milliseconds: number): number {
  const from = processor.retired
  const started = threadTime()
  let now = started
  while (now - started < milliseconds) {
    const reason = processor.run(SLICE)
    if (reason !== 'budget') throw new Error(`the code stopped: ${reason}`)
    now = threadTime()
  }
  return (processor.retired - from) / (now - started) / 1000
}

/** Millions of instructions a second: in the first second, and after it. */
function measure(code: Code, compile: boolean): { cold: number; warm: number } {
  const processor = machine(code, compile)
  const cold = runFor(processor, 1000)
  runFor(processor, 1000)
  return { cold, warm: runFor(processor, seconds * 1000) }
}

/** Instructions of one round: all of them are counted up to a multiple of the rounds that are surely over. */
function instructionsPerRound(code: Code): number {
  const processor = machine(code, false)
  const { core } = processor
  const r15 = S.gpr + 15 * 8
  runFor(processor, 300)
  return processor.retired / Number(2n ** 50n - core.get64(r15))
}

// --- QEMU ---

/** A static executable with the code, and the data behind it zeroed. (System V ABI, "Object Files") */
function executable(code: Uint8Array): Uint8Array {
  const header = new Uint8Array(0x1000)
  const view = new DataView(header.buffer)
  header.set([0x7f, 0x45, 0x4c, 0x46, 2, 1, 1])
  view.setUint16(16, 2, true)
  view.setUint16(18, 62, true)
  view.setUint32(20, 1, true)
  view.setUint32(24, CODE, true)
  view.setUint32(32, 64, true)
  for (const [at, value] of [[52, 64], [54, 56], [56, 2]] as const) view.setUint16(at, value, true)
  const segment = (at: number, flags: number, offset: number, address: number, inFile: number, inMemory: number) => {
    view.setUint32(at, 1, true)
    view.setUint32(at + 4, flags, true)
    for (const [n, value] of [offset, address, address, inFile, inMemory, 0x1000].entries()) view.setBigUint64(at + 8 + 8 * n, BigInt(value), true)
  }
  segment(64, 5, 0x1000, CODE, code.length, code.length)
  segment(120, 6, 0, DATA, 0, 2 * DATA_SIZE)
  return Buffer.concat([header, code])
}

function qemu(code: Code, perRound: number): number | undefined {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'))
  const path = join(folder, 'code')
  const time = (rounds: number): number | undefined => {
    writeFileSync(path, executable(image(code, rounds)))
    chmodSync(path, 0o755)
    const { status, stderr } = spawnSync('bash', ['-c', 'TIMEFORMAT="%U %S"; time qemu-x86_64 "$0"', path], { encoding: 'utf8' })
    if (status === 127) return undefined
    if (status !== 0) throw new Error(`qemu-x86_64 ended with ${status}: ${stderr}`)
    const [user, system] = stderr.trim().split(/\s+/).map(Number) as [number, number]
    return (user + system) * 1000
  }
  try {
    const least = time(1)
    if (least === undefined) return undefined
    let rounds = Math.ceil(1e7 / perRound)
    for (;;) {
      const taken = time(rounds)! - least
      if (taken > seconds * 500) return (rounds * perRound) / taken / 1000
      rounds *= 4
    }
  } finally {
    rmSync(folder, { recursive: true })
  }
}

// --- the table ---

const show = (value: number | undefined): string => (value === undefined ? '-' : value.toFixed(0)).padStart(12)
console.log(`${'M instructions/s'.padEnd(18)}${['interpreter', 'compiler', 'first second', 'qemu TCG'].map((name) => name.padStart(13)).join('')}`)
for (const code of [hotLoop(), randomMix()].filter(({ name }) => !values.only || values.only === name)) {
  const interpreter = values.tier === 'compiler' ? undefined : measure(code, false)
  const compiler = values.tier === 'interpreter' ? undefined : measure(code, true)
  const other = values.tier ? undefined : qemu(code, instructionsPerRound(code))
  console.log(`${code.name.padEnd(18)} ${show(interpreter?.warm)} ${show(compiler?.warm)} ${show(compiler?.cold)} ${show(other)}`)
}
