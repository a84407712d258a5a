/**
 * What mechanisms of Debian's kernel cost on each stack, in processor time of the whole command: one boot a stack, rounds of each mechanism with marks
 * around them, the least round less an empty one. `node bench/mechanism-times.ts [STACK...]`; Linux, needs cc. Prints a table in Markdown: the first
 * stack's times, and the others' as multiples of them.
 */

import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { COUNTS, program } from './mechanism-program.ts'

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const STACKS = ['kvm-like', 'xen-pvh', 'xen-hvm', 'xen-like']
const ROUNDS = 3
const WORKS = { nothing: 0, ...COUNTS } as const
type Work = keyof typeof WORKS
const MARK = /^@(begin|end) (\w+)$/

/** Nanoseconds that threads of a process have run. (Linux, "Documentation/scheduler/sched-stats.rst") */
function processorTime(pid: number): number {
  let sum = 0
  for (const thread of readdirSync(`/proc/${pid}/task`))
    sum += Number(readFileSync(`/proc/${pid}/task/${thread}/schedstat`, 'latin1').split(' ')[0])
  return sum
}

interface Times {
  /** To the first mark. */
  readonly boot: number
  readonly least: ReadonlyMap<Work, number>
}

function measure(stack: string, code: string): Promise<Times> {
  const works = Object.entries(WORKS).map(([name, count]) => {
    const run = `/tmp/m ${name === 'nothing' ? 'syscall' : name} ${count}`
    return `${run}; for n in ${Array.from({ length: ROUNDS }, (_, n) => n).join(' ')}; do echo @begin ${name}; ${run}; echo @end ${name}; done`
  })
  const script = [`echo ${code} | base64 -d | gzip -d > /tmp/m`, 'chmod +x /tmp/m', 'echo @begin boot', ...works].join(
    '; ',
  )
  const start = `import { start } from '${new URL('../apps/cli/src/start.ts', import.meta.url).href}'; process.exitCode = await start(process.argv.slice(1))`
  const child = spawn(process.execPath, [
    ...['--conditions=@nonroot/source', '--input-type=module', '-e', start, '--'],
    ...['run', path(`../stacks/${stack}.yaml`), '--timeout', '10m', '--', 'sh', '-c', script],
  ])
  const least = new Map<Work, number>()
  let [boot, began, line] = [0, 0, '']
  const mark = (text: string): void => {
    const [, kind, name] = MARK.exec(text.trim()) ?? []
    if (kind === undefined) return
    const now = processorTime(child.pid!)
    if (name === 'boot') boot = now
    else if (kind === 'begin') began = now
    else least.set(name as Work, Math.min(least.get(name as Work) ?? Infinity, now - began))
  }
  child.stdout.on('data', (bytes: Buffer) => {
    line += bytes.toString('latin1')
    for (let end = line.indexOf('\n'); end >= 0; end = line.indexOf('\n')) {
      mark(line.slice(0, end))
      line = line.slice(end + 1)
    }
  })
  return new Promise((resolve, reject) => {
    child.on('error', reject)
    child.on('close', (status) =>
      status === 0 ? resolve({ boot, least }) : reject(new Error(`${stack} ended with status ${status}`)),
    )
  })
}

const code = program()
const stacks = process.argv.length > 2 ? process.argv.slice(2) : STACKS
const all: Times[] = []
for (const stack of stacks) all.push(await measure(stack, code))
const each = ({ least }: Times, work: keyof typeof COUNTS): number =>
  (least.get(work)! - least.get('nothing')!) / COUNTS[work] / 1000

const [first, ...others] = stacks
console.log(`| one | ${first}, µs | ${others.join(' | ')} |`)
console.log(`|${' --- |'.repeat(stacks.length + 1)}`)
const row = (name: string, times: readonly number[]): void => {
  const [base, ...rest] = times
  console.log(`| ${name} | ${base!.toFixed(1)} | ${rest.map((time) => (time / base!).toFixed(2)).join(' | ')} |`)
}
for (const work of Object.keys(COUNTS) as (keyof typeof COUNTS)[])
  row(
    work,
    all.map((times) => each(times, work)),
  )
row(
  'boot',
  all.map(({ boot }) => boot / 1000),
)
