/** One run of one machine under the disk benchmark: times by when its lines arrive, processor time as the operating system has it. */
import { spawn } from 'node:child_process'
import { processorTime } from './processor-time.ts'

export interface DiskTest {
  /** MiB a second. */
  rate: number
  /** VM exits for a MiB; undefined where nobody counts them. */
  exits?: number
  /** Milliseconds of processor time for a MiB, of all threads. */
  cpuMs: number
}
export interface DiskResult {
  readonly name: string
  readonly says: string
  readonly tests: Record<string, DiskTest>
  problem?: string
}

const MARK = /BENCH (\S+) (begin|end|done)(?: (\d+) ([0-9a-f]+))?/
const MIB = 2 ** 20

/** Sums by test. The machine is ended when its guest says that all is done, or when the limit has passed. */
export function measure(command: string, result: DiskResult, limitMs: number): Promise<Record<string, string>> {
  const { promise, resolve } = Promise.withResolvers<Record<string, string>>()
  // A group of its own: the shell's children end with it.
  const child = spawn('/bin/sh', ['-c', `exec ${command}`], { stdio: ['ignore', 'pipe', 'pipe'], detached: true })
  const sums: Record<string, string> = {}
  delete result.problem
  let begun = { at: 0, cpu: 0, exits: 0 }
  let rest = ''
  let last = ''
  let ended: { test: string; mib: number; rate: number; cpuMs: number } | undefined
  let started = false
  let done = false
  const stop = (why?: string): void => {
    if (done) return
    done = true
    clearTimeout(timer)
    try {
      process.kill(-child.pid!, 'SIGKILL')
    } catch {
      // It has ended already.
    }
    if (why !== undefined) result.problem = `${why}; its last line: ${last}`
    resolve(sums)
  }
  const timer = setTimeout(() => stop(`not done after ${limitMs / 1000} s`), limitMs)
  const keep = (test: string, found: DiskTest): void => {
    if (found.rate > (result.tests[test]?.rate ?? 0)) result.tests[test] = found
  }
  const line = (text: string, now: number): void => {
    if (text) last = text
    const counted = /^EXITS (\d+)$/.exec(text)
    if (counted) {
      const exits = Number(counted[1])
      const kept = ended && result.tests[ended.test]
      // Only where this run's figures were the better ones.
      if (ended && kept?.rate === ended.rate) kept.exits = (exits - begun.exits) / ended.mib
      if (started) begun.exits = exits
      ended = undefined
      return
    }
    const mark = MARK.exec(text)
    if (!mark) return
    const [, test, what, bytes, sum] = mark as unknown as [string, string, string, string, string]
    if (what === 'done') return stop()
    started = what === 'begin'
    if (started) {
      begun = { at: now, cpu: processorTime(child.pid!), exits: 0 }
      return
    }
    const mib = Number(bytes) / MIB
    sums[test] = sum
    ended = {
      test,
      mib,
      rate: mib / ((now - begun.at) / 1000),
      cpuMs: (processorTime(child.pid!) - begun.cpu) / mib,
    }
    keep(test, { rate: ended.rate, cpuMs: ended.cpuMs })
  }
  child.stdout.on('data', (data: Buffer) => {
    const now = performance.now()
    const lines = (rest + data.toString('latin1')).split('\n')
    rest = lines.pop()!
    for (const text of lines) line(text.trim(), now)
  })
  child.stderr.on('data', (data: Buffer) => {
    last = data.toString('latin1').trim().split('\n').at(-1)! || last
  })
  child.on('exit', (status) => setTimeout(() => stop(`ended early with status ${status}`), 100))
  return promise
}
