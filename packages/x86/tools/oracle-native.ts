/**
 * Judges the interpreter by the host's own processor, on single instructions in user mode.
 *
 *   node --conditions=@nonroot/source tools/oracle-native.ts [--cases N] [--seed S] [--rows REGEX] [--mode 64|32]
 *     [--show N] [--counts] [--record FILE] [--replay FILE] [--report FILE]
 *
 * Random encodings of every user-mode row run on random and adversarial states, natively (native/harness.c, compiled with gcc) and through
 * the handlers; registers, defined flags, faults with error code and address, memory, x87, MXCSR and XMM must agree bit for bit.
 * `--record` keeps the native answers, `--replay` judges by kept ones instead of the processor, `--report` writes a page of counts.
 * Exit status: 0 agreement, 1 difference, 3 no gcc, or a kernel without 32-bit code for `--mode 32`.
 */
import { spawnSync } from 'node:child_process'
import { closeSync, existsSync, mkdtempSync, openSync, readFileSync, readSync, rmSync, writeFileSync, writeSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import type { Batch } from './native/batch.ts'
import { Oracle } from './native/oracle.ts'
import { Recording, Replay } from './native/recording.ts'
import { report } from './native/report.ts'

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '200000' },
    seed: { type: 'string', default: '1' },
    rows: { type: 'string', default: '' },
    mode: { type: 'string', default: '64' },
    show: { type: 'string', default: '1' },
    counts: { type: 'boolean', default: false },
    record: { type: 'string' },
    replay: { type: 'string' },
    report: { type: 'string' },
  },
})

/** Compiles the harness; undefined without gcc. */
function compileHarness(directory: string): string | undefined {
  const binary = join(directory, 'harness')
  const source = join(dirname(fileURLToPath(import.meta.url)), 'native/harness.c')
  const { status, error, stderr } = spawnSync('gcc', ['-O2', '-o', binary, source], { encoding: 'utf8' })
  if (error) return undefined
  if (status !== 0) throw new Error(`gcc: ${stderr}`)
  return binary
}

/** The harness's exit status where the kernel has no segment for 32-bit code. */
const NO_32_BIT_CODE = 4
class No32BitCode extends Error {}

function runNatively(binary: string, file: string, batch: Batch): void {
  const descriptor = openSync(file, 'w+')
  writeSync(descriptor, batch.bytes)
  const { status, signal, stderr } = spawnSync(binary, [file], { encoding: 'utf8' })
  if (status === NO_32_BIT_CODE) throw new No32BitCode('this kernel runs no 32-bit code (IA32 emulation is off): nothing was judged; run --mode 32 on another host')
  if (status !== 0) throw new Error(`harness: status ${status}, signal ${signal} ${stderr}`)
  readSync(descriptor, batch.bytes, batch.output, batch.bytes.length - batch.output, batch.output)
  closeSync(descriptor)
}

/** CPUID features, as rows name them, by Linux's names for them. */
const FEATURES: Record<string, string> = {
  sse3: 'pni', ssse3: 'ssse3', 'sse4.1': 'sse4_1', 'sse4.2': 'sse4_2', popcnt: 'popcnt', lzcnt: 'abm', bmi1: 'bmi1', bmi2: 'bmi2', adx: 'adx',
  movbe: 'movbe', aes: 'aes', pclmulqdq: 'pclmulqdq', sha: 'sha_ni',
}
function hostLacks(): Set<string> {
  const has = new Set((/^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))?.[1] ?? '').split(' '))
  return new Set(Object.keys(FEATURES).filter((name) => !has.has(FEATURES[name]!)))
}

function print(oracle: Oracle, what: string, seconds: number): void {
  for (const [name, { cases, faults, different }] of [...oracle.counts].sort()) {
    if (!values.counts && !different) continue
    console.log(`${name.padEnd(28)} ${String(cases).padStart(9)} cases ${String(faults).padStart(8)} faults ${String(different).padStart(8)} different`)
  }
  if (oracle.machine.missing.size) console.log(`system routines asked for: ${[...oracle.machine.missing].join(' ')}`)
  console.log(`${oracle.total} cases, ${oracle.rows.length} rows, ${oracle.different} differences${oracle.unrepeated ? `, ${oracle.unrepeated} that did not repeat` : ''}, ${what}, ${seconds.toFixed(1)} s`)
}

function main(): number {
  const replay = values.replay === undefined ? undefined : new Replay(readFileSync(values.replay))
  const codeSize = (replay?.header.codeSize ?? Number(values.mode)) === 32 ? 32 : 64
  const seed = replay?.header.seed ?? Number(values.seed)
  const options = { codeSize, seed, rows: new RegExp(values.rows, 'i'), show: Number(values.show) } as const
  let oracle: Oracle
  const recording = values.record === undefined ? undefined : new Recording({ codeSize, seed })
  const what = `seed ${seed}, ${codeSize}-bit`
  const start = performance.now()
  const seconds = () => (performance.now() - start) / 1000
  if (replay) {
    oracle = new Oracle(options)
    while (!replay.done) {
      replay.next(oracle)
      oracle.judge()
    }
  } else {
    const directory = mkdtempSync(join(existsSync('/dev/shm') ? '/dev/shm' : tmpdir(), 'oracle-'))
    try {
      const harness = compileHarness(directory)
      if (!harness) {
        console.log('no gcc: nothing was judged')
        return 3
      }
      const native = (batch: Batch) => runNatively(harness, join(directory, 'cases'), batch)
      oracle = new Oracle({ ...options, runNatively: native, lacks: hostLacks() })
      while (oracle.total < Number(values.cases)) {
        oracle.generate()
        native(oracle.native)
        recording?.add(oracle)
        oracle.judge()
      }
    } finally {
      rmSync(directory, { recursive: true })
    }
  }
  print(oracle, what, seconds())
  if (replay?.stale) console.log(`${replay.stale} recorded instructions were made otherwise than now: record again`)
  if (values.record !== undefined && recording) writeFileSync(values.record, recording.toBytes())
  if (values.report !== undefined) writeFileSync(values.report, report(oracle, codeSize, seed, seconds()))
  return oracle.different ? 1 : 0
}

try {
  process.exitCode = main()
} catch (error) {
  if (!(error instanceof No32BitCode)) throw error
  console.log(error.message)
  process.exitCode = 3
}
