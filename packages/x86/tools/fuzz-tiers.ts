/**
 * The interpreter against the compiler on random sequences of 1 to 12 instructions, thousands a second. oracle-tiers.ts runs whole programs,
 * which reach what sequences do not (code that changes, calls from region to region) and are a hundred times slower.
 *
 *     npm run fuzz:tiers -- [--sequences 100000 | --minutes M] [--seed 1] [--only NUMBER] [--most 5] [--json]
 */
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { BatchRunner, BatchStatistics, type Failure } from './tiers/batch.ts'
import { circumstances, minimise, print } from './tiers/report.ts'
import { BATCH, randomSequence, type Sequence } from './tiers/sequence.ts'
import { watchdog } from './tiers/watchdog.ts'

// Regions are short-lived: V8's baseline tier does.
setFlagsFromString('--liftoff-only')

const { values } = parseArgs({
  options: {
    sequences: { type: 'string' }, minutes: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' }, most: { type: 'string' }, json: { type: 'boolean' },
  },
})
/** Sequences are numbered; a seed is where to begin. */
const SEQUENCES_A_SEED = 100_000_000
const PROGRESS_EVERY = 30_000

const seed = Number(values.seed ?? 1)
const minutes = Number(values.minutes ?? 0)
const wanted = Number(values.sequences ?? (minutes ? Infinity : 100_000))
const mostFailures = Number(values.most ?? 5)

const begin = watchdog(60_000)
const started = performance.now()
const statistics = new BatchStatistics()
const runner = new BatchRunner(statistics, ({ seed }) => begin(seed), 64)
const failed: number[] = []

/** A sequence by itself, beside the statistics. */
const alone = new BatchRunner(new BatchStatistics(), ({ seed }) => begin(seed), 1)
function fails(sequence: Sequence): Failure | undefined {
  try {
    return alone.run([sequence])[0]
  } catch (error) {
    return { sequence, pass: -1, chunk: -1, differences: [String((error as Error).stack)] }
  }
}

function run(sequences: readonly Sequence[]): void {
  let failures: readonly Failure[]
  try {
    failures = runner.run(sequences)
  } catch (error) {
    // The verifier's objections, for one.
    failures = sequences.map(fails).filter((failure) => failure !== undefined)
    if (!failures.length) throw error
  }
  for (const failure of failures) report(failure)
}

function report({ sequence, pass, differences }: Failure): void {
  failed.push(sequence.seed)
  const again = fails(sequence)
  const least = again ? minimise(sequence, fails) : sequence
  const last = again ? fails(least) : undefined
  console.error(
    `--only ${sequence.seed}: ${circumstances(sequence)}${again ? '' : ' (does not fail by itself)'}\n${print(least)}\n  pass ${last?.pass ?? pass}\n  ${(last?.differences ?? differences).join('\n  ')}\n`,
  )
}

let told = { at: started, sequences: 0 }
/** A line now and then, with the speed since the last one: handlers are made at first. */
function progress(): void {
  const now = performance.now()
  if (now - told.at < PROGRESS_EVERY) return
  const speed = ((statistics.sequences - told.sequences) / (now - told.at)) * 1000
  console.error(`${statistics.sequences} sequences, ${failed.length} differences, ${Math.round(speed)} sequences/s, ${Math.round(process.memoryUsage().rss / 2 ** 20)} MiB`)
  told = { at: now, sequences: statistics.sequences }
}

if (values.only) {
  const sequence = randomSequence(Number(values.only))
  console.log(print(sequence))
  run([sequence])
} else {
  const first = seed * SEQUENCES_A_SEED
  for (let n = 0; n < wanted && failed.length < mostFailures; n += BATCH) {
    if (minutes && performance.now() - started > minutes * 60_000) break
    progress()
    run(Array.from({ length: Math.min(BATCH, wanted - n) }, (_, i) => randomSequence(first + n + i)))
  }
}

const seconds = (performance.now() - started) / 1000
const { sequences, instructions, inRegions, refused, retired, endings } = statistics
if (values.json) console.log(JSON.stringify({ seed, sequences, differences: failed.length, failed, instructions, inRegions, refused, retired, seconds, endings: Object.fromEntries(endings) }))
else {
  console.log(
    `${sequences} sequences of ${instructions} instructions, ${inRegions} in regions, ${refused} sequences refused, ${retired} instructions retired, ` +
      `${failed.length} differences, ${seconds.toFixed(1)} s, ${Math.round(sequences / seconds)} sequences/s, seed ${seed}`,
  )
  console.log([...endings].toSorted((a, b) => b[1] - a[1]).map(([ending, count]) => `${ending} ${count}`).join(', '))
}
process.exitCode = failed.length ? 1 : 0
