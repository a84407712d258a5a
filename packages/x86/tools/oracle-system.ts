/**
 * The processor against a reference machine that remembers nothing (reference/), on random system programs: edits of page tables with and without the
 * right invalidation, control registers, PCIDs, changed and remapped code, faults within deliveries, interrupts at any boundary. Both tiers.
 *
 *     npm run oracle:system -- [--programs 2000 | --minutes M] [--seed 1 | --from NUMBER] [--only NUMBER] [--most 3] [--json]
 *
 * A run says with which number the next one goes on.
 */
import { parseArgs } from 'node:util'
import { setFlagsFromString } from 'node:v8'
import { SystemPair, type Difference } from './system/pair.ts'
import { randomProgram, type SystemProgram } from './system/program.ts'
import { watchdog } from './tiers/watchdog.ts'

setFlagsFromString('--liftoff-only')

const { values } = parseArgs({
  options: { programs: { type: 'string' }, minutes: { type: 'string' }, seed: { type: 'string' }, only: { type: 'string' }, from: { type: 'string' }, most: { type: 'string' }, json: { type: 'boolean' } },
})
/** Programs are numbered; a seed is where to begin. */
const PROGRAMS_A_SEED = 10_000_000
const seed = Number(values.seed ?? 1)
const minutes = Number(values.minutes ?? 0)
const wanted = values.only ? 1 : Number(values.programs ?? (minutes ? Infinity : 2000))
const mostFailures = Number(values.most ?? 3)
const begin = watchdog(60_000)
const pair = new SystemPair()
const failed: number[] = []
const started = performance.now()

function attempt(program: SystemProgram): Difference | undefined {
  begin(program.seed)
  try {
    return pair.run(program)
  } catch (error) {
    return { tier: 'interpreter', lines: [String((error as Error).stack ?? error)] }
  }
}

/** Leaves out one action after another, and interrupts, as long as it still fails. */
function minimise(program: SystemProgram): SystemProgram {
  let best = program
  for (let n = best.actions.length - 1; n >= 0; n--) {
    const candidate = { ...best, actions: best.actions.filter((_, i) => i !== n) }
    if (attempt(candidate)) best = candidate
  }
  const calm = { ...best, interrupts: [] }
  return attempt(calm) ? calm : best
}

let told = started
const first = Number(values.only ?? values.from ?? seed * PROGRAMS_A_SEED)
let programs = 0
for (; programs < wanted && failed.length < mostFailures; programs++) {
  if (minutes && performance.now() - started > minutes * 60_000) break
  const program = randomProgram(first + programs)
  const difference = attempt(program)
  if (difference) {
    failed.push(program.seed)
    const least = minimise(program)
    const last = attempt(least) ?? difference
    console.error(`--only ${program.seed}: ${last.tier}\n  ${least.actions.map(({ name }) => name).join('\n  ')}${least.interrupts.length ? `\n  interrupts at ${least.interrupts.join(', ')}` : ''}\n    ${last.lines.join('\n    ')}\n`)
  }
  if (performance.now() - told > 30_000) {
    told = performance.now()
    console.error(`${programs} programs, ${failed.length} differences, ${Math.round(programs / ((told - started) / 1000))} a second`)
  }
}
const seconds = (performance.now() - started) / 1000
const endings = Object.fromEntries([...pair.endings].toSorted((a, b) => b[1] - a[1]))
const next = first + programs
if (values.json) console.log(JSON.stringify({ seed, next, programs, differences: failed.length, failed, instructions: pair.instructions, seconds, endings }))
else console.log(`${programs} programs, ${pair.instructions} instructions, ${failed.length} differences, ${seconds.toFixed(1)} s, numbers ${first} to ${next - 1}, go on with --from ${next}: ${Object.entries(endings).map(([name, count]) => `${name} ${count}`).join(', ')}`)
process.exitCode = failed.length ? 1 : 0
