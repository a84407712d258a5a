/**
 * What mechanisms of Debian's kernel cost on each stack, in counts: a run with so many of one, less a run with none, both under the deterministic
 * clock. `node bench/mechanisms.ts [STACK...]`; needs cc. Prints a table in Markdown.
 */

import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { COUNTS, program } from './mechanism-program.ts'

const path = (name: string): string => fileURLToPath(new URL(name, import.meta.url))
const STACKS = ['xen-like', 'xen-pvh', 'kvm-like']
type Mechanism = keyof typeof COUNTS

/** Metrics by name of a run to its end. */
function measure(stack: string, code: string, mechanism: Mechanism, count: number): Map<string, number> {
  const script = `echo ${code} | base64 -d | gzip -d > /tmp/m && chmod +x /tmp/m && /tmp/m ${mechanism} ${count}`
  const start = `import { start } from '${new URL('../apps/cli/src/start.ts', import.meta.url).href}'; process.exitCode = await start(process.argv.slice(1))`
  const { status, stderr } = spawnSync(
    process.execPath,
    [
      ...['--conditions=@nonroot/source', '--input-type=module', '-e', start, '--'],
      ...['run', path(`../stacks/${stack}.yaml`), '--set', 'machine.clock=deterministic', '--timeout', '5m'],
      ...['--stats=json', '--', 'sh', '-c', script],
    ],
    { encoding: 'utf8', maxBuffer: 1 << 26 },
  )
  if (status !== 0) throw new Error(`${stack}, ${mechanism}: status ${status}\n${stderr}`)
  const { metrics } = JSON.parse(stderr) as { metrics: { name: string; value: number }[] }
  return new Map(metrics.map(({ name, value }) => [name, value]))
}

/** What is counted of each run; the first two stand for the cost as a whole. */
const COLUMNS: readonly (readonly [title: string, matches: RegExp])[] = [
  ['instructions', /^vcpu0\.instructions$/],
  ['entries into the hypervisor', /^vcpu0\.(exits|hypercalls|tableStores|bounces\.\w+|emulated\.\w+)$/],
  ['hypercalls', /^(vcpu0\.hypercalls|vcpu0\.exits\.vmcall)$/],
  ['bounces', /^vcpu0\.bounces\.\w+$/],
  ['changes of root', /^vcpu0\.modeToggles$/],
  ['table entries written by call', /^paging\.updates\.level\d$/],
  ['tables validated', /^paging\.validated\.level\d$/],
  ['EPT violations', /^paging\.violations$/],
]

const code = program()
const stacks = process.argv.length > 2 ? process.argv.slice(2) : STACKS
console.log(`| one | stack | ${COLUMNS.map(([title]) => title).join(' | ')} |`)
console.log(`|${' --- |'.repeat(COLUMNS.length + 2)}`)
for (const stack of stacks) {
  const without = measure(stack, code, 'syscall', 0)
  for (const [mechanism, count] of Object.entries(COUNTS) as [Mechanism, number][]) {
    const metrics = measure(stack, code, mechanism, count)
    const cells = COLUMNS.map(([, matches]) => {
      let sum = 0
      for (const [name, value] of metrics) if (matches.test(name)) sum += value - (without.get(name) ?? 0)
      const each = sum / count
      return each === 0 ? '' : each >= 100 ? String(Math.round(each)) : each.toFixed(2)
    })
    console.log(`| ${mechanism} | ${stack} | ${cells.join(' | ')} |`)
  }
}
