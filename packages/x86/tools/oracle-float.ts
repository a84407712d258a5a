/**
 * Judges the float library by the host's own processor.
 *
 *   node --conditions=@nonroot/source tools/oracle-float.ts [--cases N] [--seed S] [--only NAME] [--bench]
 *     [--record FILE] [--replay FILE]
 *
 * Random and adversarial states run natively (native/float.c, compiled with gcc) and through the library; results, tags, TOP,
 * status flags, C0 to C3, MXCSR and EFLAGS must agree bit for bit. Exit status: 0 agreement, 1 difference, 3 no gcc.
 * `--record` writes the native answers, `--replay` judges by such a file instead of the processor.
 */
import { spawnSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { deflateRawSync, inflateRawSync } from 'node:zlib'
import { bench } from './float/bench.ts'
import { judge, type Judge } from './float/judge.ts'
import { fillCase } from './float/cases.ts'
import { instructions } from './float/instructions.ts'
import { Random } from './float/operands.ts'
import { Batch } from './float/record.ts'

const { values } = parseArgs({
  options: {
    cases: { type: 'string', default: '200000' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
    show: { type: 'string', default: '3' },
    bench: { type: 'boolean', default: false },
    record: { type: 'string' },
    replay: { type: 'string' },
  },
})

const CHUNK = 16384 // 3.4 MB in the pipe at a time

/** Compiles the harness; undefined without gcc. */
function compileHarness(directory: string): string | undefined {
  const binary = join(directory, 'float')
  const source = join(dirname(fileURLToPath(import.meta.url)), 'native/float.c')
  const { status, error, stderr } = spawnSync('gcc', ['-O2', '-mno-red-zone', '-o', binary, source], {
    encoding: 'utf8',
  })
  if (error) return undefined
  if (status !== 0) throw new Error(`gcc: ${stderr}`)
  return binary
}

function runNatively(binary: string, batch: Batch): Batch {
  const { status, stdout } = spawnSync(binary, { input: batch.bytes, maxBuffer: batch.bytes.length + 1024 })
  if (status !== 0 || stdout.length !== batch.bytes.length)
    throw new Error(`harness: status ${status}, ${stdout.length} bytes`)
  return new Batch(stdout.buffer.slice(stdout.byteOffset, stdout.byteOffset + stdout.length) as ArrayBuffer)
}

function report(verdict: Judge, start: number): void {
  for (const [name, { cases, differences }] of verdict.counts)
    if (differences) console.log(`${name}: ${differences} of ${cases} differ`)
  for (const line of verdict.notes()) console.log(line)
  console.log(
    `${verdict.total} cases, ${verdict.differences} differences, ${((performance.now() - start) / 1000).toFixed(1)} s`,
  )
  process.exitCode = verdict.differences ? 1 : 0
}

/** What one batch has and the other has not. Its own inverse. */
function difference(left: Uint8Array, right: Uint8Array): Uint8Array {
  return left.map((byte, index) => byte ^ (right[index] as number))
}

/** A recording: the cases, then how the answers differ from them, deflated together. */
function replay(file: string): void {
  const bytes = inflateRawSync(readFileSync(file))
  const half = bytes.length / 2
  const part = (from: number): Batch =>
    new Batch(bytes.buffer.slice(bytes.byteOffset + from, bytes.byteOffset + from + half) as ArrayBuffer)
  const verdict = judge(Number(values.show))
  const start = performance.now()
  const cases = part(0)
  const answers = Batch.of(cases.count)
  answers.bytes.set(difference(cases.bytes, part(half).bytes))
  verdict.compare(cases, answers)
  report(verdict, start)
}

function live(): void {
  const directory = mkdtempSync(join(tmpdir(), 'oracle-float-'))
  try {
    const binary = compileHarness(directory)
    if (!binary) {
      console.log('no gcc: nothing judged')
      process.exitCode = 3
      return
    }
    const random = new Random(Number(values.seed))
    const features = readFileSync('/proc/cpuinfo', 'utf8')
    const chosen = instructions.filter(
      ({ name, feature }) =>
        (!values.only || new RegExp(values.only).test(name)) && (!feature || features.includes(` ${feature} `)),
    )
    const verdict = judge(Number(values.show))
    const start = performance.now()
    for (let left = Number(values.cases); left > 0; left -= CHUNK) {
      const batch = Batch.of(Math.min(CHUNK, left))
      for (let index = 0; index < batch.count; index++) {
        const instruction = chosen[(index + verdict.total) % chosen.length]
        if (instruction) fillCase(random, batch, index, instruction)
      }
      const answers = runNatively(binary, batch)
      verdict.compare(batch, answers)
      if (values.record)
        writeFileSync(values.record, deflateRawSync(Buffer.concat([batch.bytes, difference(batch.bytes, answers.bytes)]), { level: 9 }))
    }
    report(verdict, start)
  } finally {
    rmSync(directory, { recursive: true })
  }
}

if (values.bench) {
  const { library, memory, cpu } = judge(0)
  bench(library, memory, cpu)
} else if (values.replay) replay(values.replay)
else live()
