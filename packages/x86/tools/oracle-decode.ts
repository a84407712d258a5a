/**
 * The decoder against GNU objdump: every instruction of objdump's own stream, length, mnemonic and operands.
 * `npm run oracle:decode -- FILE...`; a file is an ELF file or a Linux bzImage. Exits with 1 when a length or a mnemonic
 * differs beyond naming.
 */
import { spawn } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { decode } from '../src/decode/decoder.ts'
import { disassemble } from '../src/decode/disassemble.ts'
import { createInstruction, type CodeSize } from '../src/decode/instruction.ts'
import { rows } from '../src/rows/index.ts'
import { elfOf } from './oracle/kernel-image.ts'
import { parseText } from './oracle/spelling.ts'
import { vectorLength } from './oracle/vector-length.ts'

type Kind = 'length' | 'unknown' | 'mnemonic' | 'operands'

/** One file's comparison. Samples are kept by what differs, not by where. */
class Comparison {
  instructions = 0
  vector = 0
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
    this.instructions++
    const length = this.load(hexBytes)
    const address = BigInt(`0x${location.trim().slice(0, -1)}`)
    const mode = { codeSize: this.codeSize, protectedMode: true }
    const result = decode(this.bytes, 0, 15, mode, this.instruction)
    if (result !== 'ok' && vectorLength(this.bytes) > 0) {
      this.vector++
      if (vectorLength(this.bytes) !== length) this.differ('length', 'vector', line)
    } else if (result !== 'ok') this.differ('unknown', text.split(' ')[0] ?? '', line)
    else if (this.instruction.length !== length) this.differ('length', this.instruction.row.mnemonic, line)
    else this.compareText(text, address, line)
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
    const head = `${name}: ${this.instructions} instructions (${this.vector} VEX or EVEX by length only), ${this.bad} skipped`
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

async function compare(name: string, elf: Buffer): Promise<Comparison> {
  const folder = mkdtempSync(join(tmpdir(), 'oracle-decode-'))
  try {
    const path = join(folder, 'elf')
    writeFileSync(path, elf)
    const comparison = new Comparison(elf[EI_CLASS] === ELFCLASS64 ? 64 : 32)
    // Near branches as on Intel's chips; all bytes of an instruction on its line.
    const objdump = spawn('objdump', ['-d', '-w', '--insn-width=16', '-M', 'intel,intel64', path], {
      stdio: ['ignore', 'pipe', 'inherit'],
    })
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

const files = process.argv.slice(2)
if (files.length === 0) throw new Error('usage: oracle-decode FILE...   (ELF files or Linux kernel images)')
let failed = false
for (const file of files) failed = (await compare(file, elfOf(readFileSync(file)))).failed || failed
process.exitCode = failed ? 1 : 0
