/**
 * Oracle: the interpreter against the compiler on random programs: registers, flags, memory, faults and counts of instructions. A
 * program that fails is cut down to what it takes, and printed.
 *
 *     node --conditions=@nonroot/source packages/x86/tools/oracle-tiers.ts [--cases 2000] [--seed 1] [--minutes M] [--only SEED]
 */
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { Pair, type Mismatch } from './tiers/pair.ts'
import { watchdog } from './tiers/watchdog.ts'
import { randomProgram, type Program } from './tiers/program.ts'
import { circumstances, minimise, print } from './tiers/report.ts'

// Programs are short-lived: V8's baseline tier does.
setFlagsFromString('--liftoff-only')

const { values } = parseArgs({
  options: { cases: { type: 'string' }, seed: { type: 'string' }, minutes: { type: 'string' }, only: { type: 'string' }, most: { type: 'string' }, show: { type: 'boolean' } },
})
const firstSeed = Number(values.seed ?? 1)
const minutes = Number(values.minutes ?? 0)
const cases = values.only ? 1 : Number(values.cases ?? (minutes ? Infinity : 2000))
/** Print the program before it runs. */
const show = values.show ?? false
const mostFailures = Number(values.most ?? 5)
/** A fresh pair of processors now and then: V8 keeps compiled modules for as long as their table lives. */
const CASES_A_PAIR = 2000

const begin = watchdog(60_000)
let pair = new Pair(1)
const started = performance.now()
let ran = 0
let failures = 0
let instructions = 0
const endings = new Map<string, number>()
const compiled = { regions: 0, instructions: 0, refused: 0 }

function retire(): void {
  instructions += pair.instructions
  for (const [ending, count] of pair.endings) endings.set(ending, (endings.get(ending) ?? 0) + count)
  const { statistics } = pair.compiled.processor.compiler
  for (const name of ['regions', 'instructions', 'refused'] as const) compiled[name] += statistics[name]
}
function renew(): void {
  retire()
  pair = new Pair(1)
}

function fails(program: Program): Mismatch | undefined {
  begin(program.seed)
  try {
    return pair.run(program)
  } catch (error) {
    return { pass: -1, chunk: -1, differences: [String((error as Error).stack)] }
  }
}

function report(program: Program, mismatch: Mismatch): void {
  renew()
  const again = fails(program)
  const least = again ? minimise(program, fails) : program
  const final = again ? fails(least) : mismatch
  console.error(
    `seed ${program.seed}: ${circumstances(program)}` +
      `${again ? '' : ' (does not fail on fresh processors)'}\n${print(least)}\n  pass ${final?.pass}, chunk ${final?.chunk}\n  ${(final ?? mismatch).differences.join('\n  ')}\n`,
  )
}

for (let n = 0; n < cases && failures < mostFailures; n++) {
  if (minutes && performance.now() - started > minutes * 60_000) break
  const program = randomProgram(values.only ? Number(values.only) : firstSeed * 1_000_003 + n)
  if (show) console.log(print(program))
  begin(program.seed)
  let mismatch: Mismatch | undefined
  try {
    mismatch = pair.run(program)
  } catch (error) {
    mismatch = { pass: -1, chunk: -1, differences: [String((error as Error).stack)] }
  }
  ran++
  if (mismatch) {
    failures++
    report(program, mismatch)
    renew()
  } else if (ran % CASES_A_PAIR === 0) renew()
}
retire()
const seconds = (performance.now() - started) / 1000
console.log(
  `${ran} programs, ${instructions} instructions, ${compiled.regions} regions of ${compiled.instructions} instructions (${compiled.refused} refused), ` +
    `${failures} failures, ${seconds.toFixed(1)} s, ${Math.round(ran / seconds)} programs/s, seed ${firstSeed}`,
)
console.log([...endings].toSorted((a, b) => b[1] - a[1]).map(([ending, count]) => `${ending} ${count}`).join(', '))
process.exitCode = failures ? 1 : 0
