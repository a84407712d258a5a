/**
 * Mutation testing: changes a package's code in small ways, one at a time, and shows which changes its tests do not notice.
 *
 *     npm run mutate -- mmu [src/ept] [--tests src/ept,src/shadow] [--slow 10] [--sample 200 [--seed 1]]
 *
 * All mutants are compiled in, each behind a switch (StrykerJS's instrumenter). First every test runs once, to see which mutants it comes by; then each runs
 * again for every mutant that it comes by and that none has noticed so far, the quick tests first, many mutants in one process. What a module does when
 * it is loaded needs a process for each mutant. A run that was interrupted goes on where it was. Scores (per cent of the mutants that a test noticed, by folder) are kept in mutation-scores.json: a lower
 * one fails, a higher one is written down. `--sample N`: only N of the mutants, always the same for a seed; their score is written down as that of a sample, and a lower one does not fail.
 */
import { existsSync, globSync, readFileSync, writeFileSync } from 'node:fs'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { instrument, instrumentOnly, type Mutant } from './mutate/instrument.ts'
import type { Plan } from './mutate/plan.ts'
import { Progress } from './mutate/progress.ts'
import { Session } from './mutate/session.ts'

const root = fileURLToPath(new URL('..', import.meta.url))
const SCORES = join(root, 'tools/mutation-scores.json')
/** Processor seconds of a test, by round: the quick ones go first. */
const ROUNDS = [0, 0.05, 0.5, 5, Infinity] as const
/** A mutant's place is met so many times more often than without it: it does not end. */
const ASTRAY = 100
/** Processor seconds beyond what a test takes otherwise. */
const PATIENCE = 3

const { values, positionals } = parseArgs({ allowPositionals: true, options: { slow: { type: 'string' }, tests: { type: 'string' }, sample: { type: 'string' }, seed: { type: 'string' } } })
const [name, path = 'src'] = positionals
const folder = ['packages', 'apps'].map((kind) => `${kind}/${name ?? ''}`).find((at) => name && existsSync(join(root, at, path)))
if (!folder) {
  console.error(`there is no ${path} in a package '${name ?? ''}'; npm run mutate -- PACKAGE [PATH], PATH within the package`)
  process.exit(2)
}
/** Only tests below these, separated by commas: a score is at least as high with all of them. */
const testsBelow = (values.tests ?? 'src').split(',').map((below) => join(root, folder, below))
/** Minutes that tests of more than a few seconds may take in all, and mutants of loading modules. */
const slowMinutes = Number(values.slow ?? 10)

const isSource = (file: string): boolean => !/\.test\.(support\.)?ts$|\/testing\//.test(file)
const files = (path.endsWith('.ts') ? [path] : globSync(`${path}/**/*.ts`, { cwd: join(root, folder) })).map((file) => join(root, folder, file)).filter(isSource)
const all = await instrument(files)
const made = all.mutants
const { mutants, sources } = values.sample === undefined ? all : await instrumentOnly(sampled(made, Number(values.sample), Number(values.seed ?? 0)))
console.log(`${mutants.length}${mutants.length < made.length ? ` of ${made.length}` : ''} mutants of ${files.length} files`)
const session = await Session.open(join(root, folder), sources)
const testFiles = (await session.testFiles()).filter((file) => testsBelow.some((below) => file.startsWith(below)))
const progress = new Progress(join(root, 'node_modules/.cache/mutants', `${name}-${path.replaceAll('/', '-')}.json`), sources.values(), testFiles)
const { noticed } = progress
if (noticed.size) console.log(`${noticed.size} noticed before`)

interface Test {
  readonly id: string
  readonly file: string
  readonly seconds: number
  readonly hits: Readonly<Record<string, number>>
}
const tests: Test[] = []
/** By file of tests: mutants that loading it comes by. */
const loads = new Map<string, ReadonlySet<string>>()
const known = new Set(mutants.map(({ id }) => id))

// Interrupted: what is not noticed so far, without a score. The next run goes on.
process.on('SIGTERM', () => {
  for (const event of session.events()) {
    if (event.type === 'noticed') noticed.add(event.mutant)
    else if (event.type === 'missed') progress.miss(event.test, event.mutant)
  }
  progress.save()
  for (const mutant of mutants) if (!noticed.has(mutant.id)) console.log(describe(mutant, true))
  process.exit(1)
})

try {
  for (const file of testFiles) await cover(file)
  console.log(`${tests.length} tests, ${tests.reduce((sum, { seconds }) => sum + seconds, 0).toFixed(1)} s without mutants`)
  for (const [n, most] of ROUNDS.slice(1).entries()) await round(tests.filter(({ seconds }) => seconds > ROUNDS[n]! - 1e-9 && seconds <= most), most === Infinity)
  await loading()
} finally {
  await session.close()
}
report()

async function cover(file: string): Promise<void> {
  const { events } = await session.run(file, { mode: 'cover' }, 600)
  if (!events.some(({ type }) => type === 'covered')) console.log(`${relative(root, file)} has no test that runs, and is left out`)
  for (const event of events) {
    if (event.type === 'covered' && !event.passed) console.log(`${relative(root, file)}: '${event.name}' fails without a mutant, and is left out`)
    else if (event.type === 'covered') tests.push({ id: event.test, file, seconds: event.seconds, hits: event.hits })
    if (event.type === 'loaded') loads.set(file, new Set(Object.keys(event.hits)))
  }
}

/** Every mutant that is left against these tests. */
async function round(of: readonly Test[], isSlow: boolean): Promise<void> {
  const byFile = Map.groupBy(of, ({ file }) => file)
  const weight = (file: string): number => byFile.get(file)!.reduce((sum, { seconds }) => sum + seconds, 0)
  const started = performance.now()
  for (const file of [...byFile.keys()].toSorted((a, b) => weight(a) - weight(b))) {
    /** Mutants of each test that it has yet to meet. */
    const left = new Map(byFile.get(file)!.map((test) => [test.id, new Set(Object.keys(test.hits).filter((id) => known.has(id) && !progress.isMissed(test.id, id)))]))
    const byId = new Map(byFile.get(file)!.map((test) => [test.id, test]))
    let first: { test: string; mutant: string } | undefined
    for (;;) {
      if (isSlow && performance.now() - started > slowMinutes * 60_000) return console.log('the time for slow tests is over')
      const plan: Record<string, [string, number][]> = {}
      for (const [test, ids] of left) {
        const entries = [...ids].filter((id) => !noticed.has(id)).map((id): [string, number] => [id, Math.max(1000, ASTRAY * byId.get(test)!.hits[id]!)])
        // What was unsure is the first in another process.
        if (first?.test === test) entries.sort(([a], [b]) => Number(b === first!.mutant) - Number(a === first!.mutant))
        if (entries.length) plan[test] = entries
      }
      const only = first && plan[first.test] ? { [first.test]: plan[first.test]! } : plan
      first = undefined
      if (!Object.keys(only).length) break
      first = await attempt(file, { mode: 'mutants', tests: only }, left)
    }
    progress.save()
    console.log(`${relative(root, file)}: ${noticed.size} of ${mutants.length} noticed`)
  }
}

/** One process. Gives what has to be the first thing in the next. */
async function attempt(file: string, plan: Plan & { mode: 'mutants' }, left: ReadonlyMap<string, Set<string>>): Promise<{ test: string; mutant: string } | undefined> {
  const longest = Math.max(...Object.keys(plan.tests).map((id) => tests.find((test) => test.id === id)!.seconds))
  const { events, ended } = await session.run(file, plan, PATIENCE + 20 * longest, 3 + 20 * longest)
  let open: { test: string; mutant: string } | undefined
  let unsure: { test: string; mutant: string } | undefined
  const met = (test: string, mutant: string): boolean => left.get(test)!.delete(mutant)
  let moved = false
  for (const event of events) {
    if (event.type === 'started') open = event
    else if (event.type === 'noticed' || event.type === 'missed') {
      if (event.type === 'noticed') noticed.add(event.mutant)
      else progress.miss(event.test, event.mutant)
      met(event.test, event.mutant)
      open = undefined
      moved = true
    } else if (event.type === 'spoilt') {
      if (event.unsure) unsure = { test: event.test, mutant: event.unsure }
      // It does not pass a second time in a process, or not without the tests before it.
      else if (!moved) left.get(event.test)!.clear()
    }
  }
  if (open && !unsure && (ended || !events.some(({ type }) => type === 'spoilt'))) {
    // The process ended in the midst of it, or its last result has not been told.
    noticed.add(open.mutant)
    met(open.test, open.mutant)
    moved = true
  }
  // A test that is not run any more, for what reason ever, is left out.
  if (!moved && !unsure) for (const id of Object.keys(plan.tests)) left.get(id)!.clear()
  progress.save()
  return unsure
}

/** What modules do when they are loaded: a process for each mutant and file, until one notices. */
async function loading(): Promise<void> {
  const weight = (file: string): number => tests.reduce((sum, test) => sum + (test.file === file ? test.seconds : 0), 0)
  const inOrder = [...loads.keys()].toSorted((a, b) => weight(a) - weight(b))
  const candidates = mutants.filter(({ id }) => !noticed.has(id) && [...loads.values()].some((ids) => ids.has(id)))
  if (candidates.length) console.log(`${candidates.length} mutants in what is done when modules are loaded`)
  const slow = tests.filter(({ seconds }) => seconds > ROUNDS[3]).map(({ id }) => id)
  const started = performance.now()
  for (const { id } of candidates) {
    if (performance.now() - started > slowMinutes * 60_000) return console.log('the time for what is done when modules are loaded is over')
    for (const file of inOrder.filter((at) => loads.get(at)!.has(id))) {
      const { failed } = await session.run(file, { mode: 'static', mutant: id, skip: slow }, PATIENCE + 20 * weight(file))
      if (!failed) continue
      noticed.add(id)
      progress.save()
      break
    }
  }
}

/** `count` of these, in their order, the same in each run. Tests that were written for one sample are judged by that of another seed. */
function sampled(from: readonly Mutant[], count: number, seed: number): readonly Mutant[] {
  /** (Knuth's multiplicative hash: consecutive numbers in an order of their own) */
  const place = (index: number): number => Math.imul(index + 1 + seed, 0x9e3779b1) >>> 0
  const chosen = new Set([...from.keys()].toSorted((a, b) => place(a) - place(b)).slice(0, count))
  return from.filter((_, index) => chosen.has(index))
}

function report(): void {
  const met = new Set([...tests.flatMap(({ hits }) => Object.keys(hits)), ...[...loads.values()].flatMap((ids) => [...ids])])
  const counts = new Map<string, { noticed: number; all: number }>()
  for (const mutant of mutants) {
    const at = relative(root, dirname(mutant.file))
    const count = counts.get(at) ?? { noticed: 0, all: 0 }
    counts.set(at, count)
    count.all++
    if (noticed.has(mutant.id)) count.noticed++
    else console.log(describe(mutant, met.has(mutant.id)))
  }
  const scores = (existsSync(SCORES) ? JSON.parse(readFileSync(SCORES, 'utf8')) : {}) as Record<string, number | { readonly score: number; readonly sample: number }>
  console.log('')
  for (const [at, { noticed: found, all }] of [...counts].toSorted()) {
    const score = Math.floor((1000 * found) / all) / 10
    const kept = scores[at]
    const before = typeof kept === 'number' ? kept : undefined
    console.log(`${at}: ${score} % of ${all}${before === undefined ? '' : `, before ${before} %`}`)
    // A file says nothing of its folder, and a sample little.
    if (path.endsWith('.ts')) continue
    if (mutants.length < made.length) {
      if (before === undefined) scores[at] = { score, sample: all }
    } else if (before !== undefined && score < before) process.exitCode = 1
    else scores[at] = score
  }
  writeFileSync(SCORES, `${JSON.stringify(Object.fromEntries(Object.entries(scores).toSorted()), undefined, 2)}\n`)
}
function describe({ file, line, column, kind, replacement }: Mutant, isMet: boolean): string {
  return `${relative(root, file)}:${line}:${column} ${isMet ? kind : 'no test'}: ${replacement.slice(0, 100)}`
}
