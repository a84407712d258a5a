/** One machine under measurement: started by a shell, timed from outside by the lines that its guest prints. */
import { spawn, spawnSync } from 'node:child_process'
import { processorTime } from './processor-time.ts'

export interface Machine {
  readonly name: string
  readonly command: string
  /** Best of the runs so far, in ms, by test; `boot` is from the start of the command to init, `all` to the end. */
  readonly times: Record<string, number>
  readonly checks: Record<string, string>
  problem?: string
}

/** What a time is taken of: the wall's clock, or the processor's over all threads of a machine, which other work disturbs less. */
export type ClockName = 'wall' | 'cpu'

export const machine = (name: string, command: string): Machine => ({ name, command, times: {}, checks: {} })

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
const MARK = /BENCH (\S+) (?:(begin|end|done)(?: (\d+) ([0-9a-f]+))?|check (\S+))/

/** One run; the machine is ended when its guest says that all is done, or when the limit has passed. */
export function runOnce(of: Machine, limitMs: number, clock: ClockName = 'wall'): Promise<void> {
  const { promise, resolve } = Promise.withResolvers<void>()
  // A group of its own: the shell's children end with it.
  const child = spawn('/bin/sh', ['-c', of.command], { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const time = (): number => (clock === 'wall' ? performance.now() : processorTime(child.pid!))
  const started = time()
  const begun = new Map<string, number>()
  let rest = ''
  let last = ''
  let done = false
  const keep = (test: string, ms: number): void => {
    of.times[test] = Math.min(of.times[test] ?? Infinity, ms)
  }
  const stop = (why?: string): void => {
    if (done) return
    done = true
    clearTimeout(timer)
    for (const signal of SIGNALS) process.off(signal, interrupted)
    try {
      process.kill(-child.pid!, 'SIGKILL')
    } catch {
      // It has ended already.
    }
    if (why !== undefined) of.problem = `${why}; its last line: ${last}`
    resolve()
  }
  // The machine has a group of its own, so nobody else ends it with us.
  const interrupted = (): void => {
    stop('interrupted')
    process.exit(130)
  }
  for (const signal of SIGNALS) process.on(signal, interrupted)
  const timer = setTimeout(() => stop(`not done after ${limitMs / 1000} s`), limitMs)
  const line = (text: string, now: number): void => {
    if (text) last = text
    if (text.includes('GUEST-INIT')) keep('boot', now - started)
    const mark = MARK.exec(text)
    if (!mark) return
    const [, test, what, , check, late] = mark
    if (late !== undefined) of.checks[test!] = late
    else if (what === 'begin') begun.set(test!, now)
    else if (what === 'end') {
      keep(test!, now - begun.get(test!)!)
      if (check !== undefined) of.checks[test!] = check
    } else {
      keep('all', now - started)
      stop()
    }
  }
  child.stdout.on('data', (data: Buffer) => {
    const lines = (rest + data.toString('latin1')).split('\n')
    rest = lines.pop()!
    const now = lines.some((text) => MARK.test(text) || text.includes('GUEST-INIT')) ? time() : 0
    for (const text of lines) line(text.trim(), now)
  })
  child.stderr.on('data', (data: Buffer) => {
    last = data.toString('latin1').trim().split('\n').at(-1)! || last
  })
  child.on('exit', (status) => setTimeout(() => stop(`ended early with status ${status}`), 100))
  return promise
}

/** What the tests come to on this computer: what every machine must come to. */
export function nativeChecks(program: string, tests: readonly string[]): Record<string, string> {
  const { stdout } = spawnSync(program, tests, { encoding: 'latin1' })
  const checks: Record<string, string> = {}
  for (const text of (stdout ?? '').split('\n')) {
    const mark = MARK.exec(text)
    if (mark?.[2] === 'end') checks[mark[1]!] = mark[4]!
  }
  return checks
}

export const isInstalled = (program: string): boolean =>
  spawnSync(program, ['--version'], { stdio: 'ignore' }).error === undefined
