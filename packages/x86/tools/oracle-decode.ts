/**
 * The decoder against GNU objdump: every instruction of objdump's own stream, length, mnemonic and operands.
 * `npm run oracle:decode -- FILE...`; a file is an ELF file or a Linux bzImage. Exits with 1 when a length or a mnemonic
 * differs beyond naming. `--random N` compares random code in all three code sizes instead: there objdump also prints what
 * no chip executes, so its report is to be read, not to be empty.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { parseArgs } from 'node:util'
import { decode } from '../src/decode/decoder.ts'
import { disassemble } from '../src/decode/disassemble.ts'
import { createInstruction, type CodeSize } from '../src/decode/instruction.ts'
import { rows } from '../src/rows/index.ts'
import { elfOf } from './oracle/kernel-image.ts'
import { randomCode } from './oracle/random-code.ts'
import { FOREIGN, parseText } from './oracle/spelling.ts'
import { vectorLength } from './oracle/vector-length.ts'

type Kind = 'length' | 'unknown' | 'mnemonic' | 'operands'

const PREFIXES_ALONE = /^(?:(?:rex(?:\.[WRXB]+)?|[c-gs]s|es|data16|data32|addr16|addr32|repn?z|lock|bnd)\s*)+$/

/** One file's comparison. Samples are kept by what differs, not by where. */
class Comparison {
  instructions = 0
  vector = 0
  foreign = 0
  bad = 0
  readonly counts: Record<Kind, number> = { length: 0, unknown: 0, mnemonic: 0, operands: 0 }
  private readonly samples = new Map<string, { count: number; first: string }>()
  private readonly codeSize: CodeSize
  private readonly instruction = createInstruction(rows[0]!)
  private readonly bytes = new Uint8Array(16)

  constructor(codeSize: CodeSize) {
    this.codeSize = codeSize
  }

  /** `  401000:\t55                \tpush   rbp` */
  line(line: string): void {
    const [location, hexBytes, text] = line.split('\t')
    if (text === undefined || hexBytes === undefined || location === undefined) return
    if (text.includes('(bad)')) {
      this.bad++
      return
    }
    // A prefix that another of its kind follows has a line of its own.
    if (PREFIXES_ALONE.test(text)) return
    this.instructions++
    const length = this.load(hexBytes)
    const address = BigInt(`0x${location.trim().slice(0, -1)}`)
    const mode = { codeSize: this.codeSize, protectedMode: true }
    const result = decode(this.bytes, 0, 15, mode, this.instruction)
    if (result !== 'ok' && vectorLength(this.bytes) > 0) {
      this.vector++
      if (vectorLength(this.bytes) !== length) this.differ('length', 'vector', line)
    } else if (result === 'ud' && FOREIGN.has(parseText(text).mnemonic)) this.foreign++
    else if (result !== 'ok') this.differ('unknown', text.split(' ')[0] ?? '', line)
    else if (this.instruction.row.mnemonic === 'FWAIT' && length > 1) this.joined(length, line)
    else if (this.instruction.length !== length) this.differ('length', this.instruction.row.mnemonic, line)
    else this.compareText(text, address, line)
  }

  /** objdump joins WAIT and the instruction after it: `9b db e3  finit`. */
  private joined(length: number, line: string): void {
    const result = decode(this.bytes, 1, 14, { codeSize: this.codeSize, protectedMode: true }, this.instruction)
    if (result !== 'ok' || this.instruction.length !== length - 1) this.differ('length', 'FWAIT', line)
  }

  private load(hexBytes: string): number {
    const parts = hexBytes.trim().split(' ')
    this.bytes.fill(0)
    parts.forEach((part, index) => (this.bytes[index] = Number.parseInt(part, 16)))
    return parts.length
  }

  private compareText(text: string, address: bigint, line: string): void {
    const mine = disassemble(this.instruction, address)
    const [ours, theirs] = [parseText(mine), parseText(text)]
    if (ours.mnemonic !== theirs.mnemonic)
      this.differ('mnemonic', `${ours.mnemonic} for ${theirs.mnemonic}`, `${line} | ${mine}`)
    else if (ours.operands !== theirs.operands) this.differ('operands', ours.mnemonic, `${line} | ${mine}`)
  }

  private differ(kind: Kind, what: string, first: string): void {
    this.counts[kind]++
    const key = `${kind}: ${what}`
    const known = this.samples.get(key)
    if (known) known.count++
    else this.samples.set(key, { count: 1, first })
  }

  report(name: string): string {
    const { length, unknown, mnemonic, operands } = this.counts
    const head = `${name}: ${this.instructions} instructions (${this.vector} VEX or EVEX by length only, ${this.foreign} of other vendors refused), ${this.bad} skipped`
    const summary = `  differences: length ${length}, unknown ${unknown}, mnemonic ${mnemonic}, operands ${operands}`
    const details = [...this.samples]
      .sort(([, left], [, right]) => right.count - left.count)
      .map(([key, { count, first }]) => `  ${count}\t${key}\t${first.trim().replaceAll('\t', ' ')}`)
    return [head, summary, ...details].join('\n')
  }

  get failed(): boolean {
    return this.counts.length + this.counts.unknown + this.counts.mnemonic > 0
  }
}

const EI_CLASS = 4
const ELFCLASS64 = 2

/** Near branches as on Intel's chips; all bytes of an instruction on its line. */
const LAYOUT = ['-w', '--insn-width=16', '-M', 'intel,intel64']
const MACHINE = { 16: 'i8086', 32: 'i386', 64: 'i386:x86-64' } as const

async function compare(name: string, code: Buffer, codeSize: CodeSize, selection: string[]): Promise<Comparison> {
  const folder = mkdtempSync(join(tmpdir(), 'oracle-decode-'))
  try {
    const path = join(folder, 'code')
    writeFileSync(path, code)
    const comparison = new Comparison(codeSize)
    const objdump = spawn('objdump', [...selection, ...LAYOUT, path], { stdio: ['ignore', 'pipe', 'inherit'] })
    const failure = new Promise<never>((_, reject) => objdump.on('error', reject))
    const lines = async () => {
      for await (const line of createInterface({ input: objdump.stdout })) comparison.line(line)
    }
    await Promise.race([lines(), failure])
    console.log(comparison.report(name))
    return comparison
  } finally {
    rmSync(folder, { recursive: true })
  }
}

const compareElf = (file: string): Promise<Comparison> => {
  const elf = elfOf(readFileSync(file))
  return compare(file, elf, elf[EI_CLASS] === ELFCLASS64 ? 64 : 32, ['-d'])
}

const compareRandom = (codeSize: CodeSize, size: number, seed: number): Promise<Comparison> =>
  compare(
    `random, ${codeSize}-bit, seed ${seed}`,
    randomCode(size, seed),
    codeSize,
    `-D -b binary -m ${MACHINE[codeSize]}`.split(' '),
  )

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { random: { type: 'string' }, seed: { type: 'string', default: '1' } },
})
if (positionals.length === 0 && values.random === undefined)
  throw new Error('usage: oracle-decode FILE... | --random INSTRUCTIONS [--seed S]')
let failed = false
for (const file of positionals) failed = (await compareElf(file)).failed || failed
if (values.random !== undefined)
  for (const codeSize of [16, 32, 64] as const)
    failed = (await compareRandom(codeSize, Number(values.random), Number(values.seed))).failed || failed
process.exitCode = failed ? 1 : 0
