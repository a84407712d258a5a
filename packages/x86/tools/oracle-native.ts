/**
 * Judges the interpreter by the host's own processor, on single instructions in user mode.
 *
 *   node --conditions=@nonroot/source tools/oracle-native.ts [--cases N] [--seed S] [--rows REGEX] [--mode 64|32]
 *     [--show N] [--counts]
 *
 * Random encodings of every user-mode row run on random and adversarial states, natively (native/harness.c, compiled with gcc) and through
 * the handlers; registers, defined flags, faults with error code and address, memory, x87, MXCSR and XMM must agree bit for bit.
 * Exit status: 0 agreement, 1 difference, 3 no gcc.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readSync, rmSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Random } from './float/operands.ts'
import { addressOf, Batch } from './native/batch.ts'
import { describe, differences } from './native/compare.ts'
import { encode, type Encoded } from './native/encode.ts'
import { Machine } from './native/machine.ts'
import { userRows } from './native/rules.ts'
import { fillState, usesOf } from './native/states.ts'

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '200000' },
    seed: { type: 'string', default: '1' },
    rows: { type: 'string', default: '' },
    mode: { type: 'string', default: '64' },
    show: { type: 'string', default: '1' },
    counts: { type: 'boolean', default: false },
  },
})

const INSTRUCTIONS = 512 // their slots fit the eight pages of code that the machine maps
const EACH = 24

/** Compiles the harness; undefined without gcc. */
function compileHarness(directory: string): string | undefined {
  const binary = join(directory, 'harness')
  const source = join(dirname(fileURLToPath(import.meta.url)), 'native/harness.c')
  const { status, error, stderr } = spawnSync('gcc', ['-O2', '-o', binary, source], { encoding: 'utf8' })
  if (error) return undefined
  if (status !== 0) throw new Error(`gcc: ${stderr}`)
  return binary
}

function runNatively(binary: string, file: string, batch: Batch): void {
  const descriptor = openSync(file, 'w+')
  writeSync(descriptor, batch.bytes)
  const { status, signal, stderr } = spawnSync(binary, [file], { encoding: 'utf8' })
  if (status !== 0) throw new Error(`harness: status ${status}, signal ${signal} ${stderr}`)
  readSync(descriptor, batch.bytes, batch.output, batch.bytes.length - batch.output, batch.output)
  closeSync(descriptor)
}

interface Count {
  cases: number
  faults: number
  different: number
}

const codeSize = values.mode === '32' ? 32 : 64
const pattern = new RegExp(values.rows, 'i')
const rows = userRows(codeSize).filter((row) => pattern.test(`${row.mnemonic} ${row.operandText}`))
const random = new Random(Number(values.seed))
const counts = new Map<string, Count>()
const shown = new Map<string, number>()
let total = 0
let different = 0
let nextRow = 0

/** A batch of random instructions, rows in turn. */
function generate(batch: Batch): Encoded[] {
  const encoded: Encoded[] = []
  for (let n = 0; n < batch.instructions; n++) {
    let one: Encoded | undefined
    for (let tries = 0; !one; tries++) {
      const row = rows[nextRow]!
      one = encode(random, row, addressOf(n), codeSize)
      if (one || tries % 40 === 39) nextRow = (nextRow + 1) % rows.length
      if (tries > 40 * rows.length) throw new Error('no row can be encoded')
    }
    encoded.push(one)
    batch.setInstruction(n, one.code, usesOf(one.row))
    for (let m = 0; m < batch.each; m++) fillState(random, batch, one, batch.inputOf(n, m))
  }
  return encoded
}

function judge(encoded: readonly Encoded[], native: Batch, ours: Batch): void {
  encoded.forEach((one, n) => {
    const name = `${one.row.mnemonic} ${one.row.operandText}`
    const count = counts.get(name) ?? { cases: 0, faults: 0, different: 0 }
    counts.set(name, count)
    const flags = native.flagsOf(n)
    for (let m = 0; m < native.each; m++) {
      const input = native.inputOf(n, m), output = native.outputOf(n, m)
      count.cases++
      if (native.u32[(output + 136) >>> 2] !== 0xffff_ffff) count.faults++
      if (!differences(one, native, ours, input, output, flags, false).length) continue
      count.different++
      different++
      const seen = shown.get(name) ?? 0
      shown.set(name, seen + 1)
      if (seen < Number(values.show)) console.log(describe(one, native, ours, input, output, differences(one, native, ours, input, output, flags, true)) + '\n')
    }
  })
  total += native.instructions * native.each
}

const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'oracle-'))
try {
  const harness = compileHarness(directory)
  if (!harness) {
    console.log('no gcc: nothing was judged')
    process.exit(3)
  }
  const start = performance.now()
  const machine = new Machine(codeSize)
  const native = new Batch(INSTRUCTIONS, EACH, codeSize)
  const ours = new Batch(INSTRUCTIONS, EACH, codeSize)
  while (total < Number(values.cases)) {
    const encoded = generate(native)
    runNatively(harness, join(directory, 'cases'), native)
    encoded.forEach((one, n) => machine.run(native, n, one.address, ours))
    judge(encoded, native, ours)
  }
  const seconds = (performance.now() - start) / 1000
  for (const [name, { cases, faults, different: d }] of [...counts].sort()) {
    if (values.counts || d) console.log(`${name.padEnd(28)} ${String(cases).padStart(9)} cases ${String(faults).padStart(8)} faults ${String(d).padStart(8)} different`)
  }
  if (machine.missing.size) console.log(`system routines asked for: ${[...machine.missing].join(' ')}`)
  console.log(`${total} cases, ${rows.length} rows, ${different} differences, seed ${values.seed}, ${codeSize}-bit, ${seconds.toFixed(1)} s`)
  process.exitCode = different ? 1 : 0
} finally {
  rmSync(directory, { recursive: true })
}
