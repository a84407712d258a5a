/**
 * Runs each test once for every mutant that it comes by, in one process: vitest repeats the test, hooks included, with another switch set each time. After a
 * mutant that was noticed the test is run without any: where it fails, something has stayed changed, and the driver goes on in another process.
 */
import { appendFileSync, readFileSync } from 'node:fs'
import { TestRunner, type RunnerTask, type RunnerTestCase, type RunnerTestFile, type TestTryOptions } from 'vitest'
import { EVENTS, PLAN, type Event, type Plan } from './plan.ts'

type Hits = Record<string, number>
/** What the instrumented code reads and writes. */
interface Switches {
  activeMutant?: string | undefined
  hitCount?: number | undefined
  hitLimit?: number | undefined
  currentTestId?: string | undefined
  mutantCoverage?: { static: Hits; perTest: Record<string, Hits> }
}
const switches: Switches = ((globalThis as { __stryker__?: Switches }).__stryker__ ??= {})

const plan = JSON.parse(readFileSync(process.env[PLAN]!, 'utf8')) as Plan
const tell = (event: Event): void => appendFileSync(process.env[EVENTS]!, `${JSON.stringify(event)}\n`)
tell({ type: 'worker', pid: process.pid })
/** Of a mutant that is active from the beginning: no loop is that long. */
const MOST_HITS = 10_000_000
if (plan.mode === 'static') {
  switches.activeMutant = plan.mutant
  switches.hitCount = 0
  switches.hitLimit = MOST_HITS
}

const idOf = (test: RunnerTask): string => `${test.file.filepath}#${test.id}`
const seconds = (): number => {
  const { user, system } = process.cpuUsage()
  return (user + system) / 1e6
}

export default class MutantRunner extends TestRunner {
  #since = 0
  /** Mutants that the current test has yet to meet. */
  #left: (readonly [string, number])[] = []
  /** The one switched on. */
  #active: string | undefined
  /** Noticed by the last run, which counts once the test passes again. */
  #noticed: string | undefined
  /** Whether the run before the noticed one was without a mutant. */
  #certain = false
  #spoilt = false

  override async onBeforeRunTask(test: RunnerTestCase): Promise<void> {
    await super.onBeforeRunTask(test)
    if (plan.mode === 'static') {
      if (this.#spoilt || plan.skip.includes(idOf(test))) test.mode = 'skip'
      return
    }
    if (plan.mode !== 'mutants') return
    this.#left = [...(plan.tests[idOf(test)] ?? [])]
    if (this.#spoilt || !this.#left.length) {
      test.mode = 'skip'
      return
    }
    this.#active = this.#noticed = undefined
    test.repeats = 2 * this.#left.length + 1
  }

  override onBeforeTryTask(test: RunnerTestCase, options: TestTryOptions): void {
    super.onBeforeTryTask(test, options)
    if (plan.mode === 'cover') {
      switches.currentTestId = idOf(test)
      this.#since = seconds()
    }
    if (plan.mode !== 'mutants' || this.#active === undefined) return
    switches.hitCount = 0
    switches.activeMutant = this.#active
  }

  override async onAfterRetryTask(test: RunnerTestCase, options: TestTryOptions): Promise<void> {
    await super.onAfterRetryTask(test, options)
    switches.currentTestId = undefined
    const result = test.result! as { state: string; pending?: boolean; errors: unknown; attempts: unknown }
    if (result.pending || result.state === 'skip') return
    const passed = (result.state !== 'fail') !== (test.fails === true)
    const id = idOf(test)
    if (plan.mode === 'cover') {
      tell({ type: 'covered', test: id, name: test.fullName, passed, seconds: seconds() - this.#since, hits: switches.mutantCoverage?.perTest[id] ?? {} })
      return
    }
    if (plan.mode === 'static') {
      if (!passed) this.#spoilt = true
      return
    }
    switches.activeMutant = switches.hitCount = undefined
    result.errors = undefined
    result.attempts = []
    if (this.#active === undefined) {
      if (this.#noticed !== undefined && (passed || this.#certain)) tell({ type: 'noticed', mutant: this.#noticed, test: id })
      if (!passed) {
        this.#spoilt = true
        tell({ type: 'spoilt', test: id, ...(this.#noticed !== undefined && !this.#certain && { unsure: this.#noticed }) })
      }
      this.#noticed = undefined
      this.#certain = true
    } else if (passed) {
      tell({ type: 'missed', mutant: this.#active, test: id })
      this.#certain = false
    } else {
      this.#noticed = this.#active
      this.#active = undefined
      return
    }
    const next = this.#spoilt ? undefined : this.#left.shift()
    this.#active = next?.[0]
    if (next) {
      switches.hitLimit = next[1]
      tell({ type: 'started', mutant: next[0], test: id })
    } else result.pending = true
  }

  override onAfterRunFiles(files: RunnerTestFile[]): void {
    super.onAfterRunFiles(files)
    if (plan.mode === 'cover') tell({ type: 'loaded', file: files[0]!.filepath, hits: switches.mutantCoverage?.static ?? {} })
  }
}
