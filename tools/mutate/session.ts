/** Runs test files of a package with its sources instrumented, each time in another process, and gives what that tells. */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { createVitest, type Vitest } from 'vitest/node'
import { EVENTS, PLAN, type Event, type Plan } from './plan.ts'

const RUNNER = fileURLToPath(new URL('runner.ts', import.meta.url))
/** Seconds after which a test, or a hook, that waits is ended, unless told: without mutants only what hangs. */
const LONGEST_WAIT = 120

export class Session {
  readonly #vitest: Vitest
  readonly #folder: string

  private constructor(vitest: Vitest, folder: string) {
    this.#vitest = vitest
    this.#folder = folder
  }
  /** `root`: the package's folder. `sources`: by path, in place of the files'. */
  static async open(root: string, sources: ReadonlyMap<string, string>): Promise<Session> {
    const folder = mkdtempSync(join(tmpdir(), 'nonroot-mutants-'))
    process.env[PLAN] = join(folder, 'plan.json')
    process.env[EVENTS] = join(folder, 'events')
    writeFileSync(process.env[EVENTS], '')
    const vitest = await createVitest(
      'test',
      {
        root, config: join(root, 'vitest.config.ts'), watch: false, pool: 'forks', maxWorkers: 1, isolate: true, runner: RUNNER, reporters: [{}],
        onConsoleLog: () => false, coverage: { enabled: false }, update: false,
        // Its keys do not know what is loaded in place of a file.
        fsModuleCache: false,
      },
      { plugins: [{ name: 'mutants', enforce: 'pre', load: (id) => sources.get(id.split('?')[0]!) }] },
    )
    return new Session(vitest, folder)
  }

  async testFiles(): Promise<string[]> {
    return (await this.#vitest.globTestSpecifications()).map(({ moduleId }) => moduleId)
  }

  /** `mostSeconds`: of the processor, without an event; the process is ended then. `longestWait`: seconds by the clock for a test, or a hook, which may wait in vain for what a mutant keeps away. `failed`: a test failed, or a file as a whole. */
  async run(file: string, plan: Plan, mostSeconds: number, longestWait = LONGEST_WAIT): Promise<{ readonly events: readonly Event[]; readonly failed: boolean; readonly ended: boolean }> {
    const vitest = this.#vitest
    writeFileSync(process.env[PLAN]!, JSON.stringify(plan))
    writeFileSync(process.env[EVENTS]!, '')
    let ended = false
    let last = { length: -1, seconds: 0 }
    const watch = setInterval(() => {
      const events = this.events()
      const pid = events.find((event) => event.type === 'worker')?.pid
      if (!pid) return
      const used = processorSeconds(pid)
      if (events.length !== last.length) last = { length: events.length, seconds: used }
      else if (used - last.seconds > mostSeconds) {
        ended = true
        process.kill(pid, 'SIGKILL')
      }
    }, 1000)
    const project = vitest.getRootProject()
    project.config.testTimeout = project.config.hookTimeout = longestWait * 1000
    vitest.state.filesMap.clear()
    vitest.state.errorsSet.clear()
    try {
      await vitest.runTestSpecifications([project.createSpecification(file)])
    } catch (error) {
      if (!ended) throw error
    } finally {
      clearInterval(watch)
    }
    process.exitCode = 0
    const failed = vitest.state.getFiles().some(({ result }) => result?.state === 'fail') || vitest.state.errorsSet.size > 0
    return { events: this.events(), failed, ended }
  }
  /** Of the process that runs, or ran last. */
  events(): Event[] {
    return readFileSync(process.env[EVENTS]!, 'utf8').split('\n').filter((line) => line.endsWith('}')).map((line) => JSON.parse(line) as Event)
  }

  async close(): Promise<void> {
    await this.#vitest.close()
    rmSync(this.#folder, { recursive: true, force: true })
  }
}

const TICKS_A_SECOND = 100
/** (Linux, proc(5): fields 14 and 15 of stat) */
function processorSeconds(pid: number): number {
  try {
    const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').split(') ')[1]!.split(' ')
    return (Number(fields[11]) + Number(fields[12])) / TICKS_A_SECOND
  } catch {
    return 0
  }
}
