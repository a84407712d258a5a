/**
 * guestbench and real programs under this project, under QEMU's TCG where it is installed, and under any other machine named, side by side.
 *
 *     npm run bench -- [--suite mechanisms,programs] [--runs 3] [--tests alu,gzip] [--json FILE] [--plot FILE.svg] [--limit SECONDS]
 *                      [--cpu max] [--clock wall] [--interpreter] [NAME='COMMAND' ...]
 *
 * `--interpreter` adds this project with its interpreter tier alone; `--tests none` takes the boot alone. Debian's boot by the
 * interpreter beside QEMU's in one run: npm run bench -- --suite mechanisms --interpreter --tests none
 *
 * A COMMAND shows the guest's console on its standard output; $KERNEL, $INITRD, $CMDLINE and $MEMORY in it stand for the guest. Figures
 * are the best of the runs; `--clock cpu` counts the processor's time in place of the wall's. Machines take turns run by run, so that what else the computer does meets all of them.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { isInstalled, machine, runOnce, type Machine } from './machine.ts'
import { plot } from './plot.ts'
import { geometricMean, rowsOf, tableText, type Row } from './report.ts'
import { SUITES, type PreparedSuite } from './suites.ts'

const QEMU = 'qemu-system-x86_64'
const CLI = fileURLToPath(new URL('../apps/cli/', import.meta.url))
const say = (text: string): void => void process.stderr.write(`${text}\n`)

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    suite: { type: 'string', default: Object.keys(SUITES).join(',') },
    programs: { type: 'boolean' },
    runs: { type: 'string', default: '3' },
    tests: { type: 'string', default: '' },
    json: { type: 'string' },
    plot: { type: 'string' },
    limit: { type: 'string', default: '420' },
    cpu: { type: 'string', default: 'max' },
    clock: { type: 'string', default: 'wall' },
    interpreter: { type: 'boolean', default: false },
  },
})
const runs = Number(values.runs)
const limit = Number(values.limit)
if (!Number.isInteger(runs) || runs < 1 || !(limit > 0)) throw new Error('--runs and --limit are positive numbers')
const { clock } = values
if (clock !== 'wall' && clock !== 'cpu') throw new Error(`--clock is wall or cpu, not ${clock}`)
const wanted = listOf(values.tests)
const suites = values.programs ? ['programs'] : listOf(values.suite)
for (const name of suites) {
  if (!Object.hasOwn(SUITES, name)) throw new Error(`--suite ${name} is not there: ${Object.keys(SUITES).join(', ')}`)
}
if (!isInstalled(QEMU)) say(`${QEMU} is not installed: no ratios to it`)
if (!existsSync(`${CLI}dist/main.js`)) throw new Error('the command is not built: run npm run build first')

const results: { suite: string; machines: Machine[]; rows: Row[] }[] = []
for (const name of suites) {
  const suite = await SUITES[name]!(wanted, say)
  if (!suite) continue
  const machines = machinesFor(suite)
  for (let run = 1; run <= runs; run++) {
    for (const one of machines) {
      say(`${name}, run ${run} of ${runs}: ${one.name}`)
      await runOnce(one, limit * 1000, clock)
    }
  }
  const rows = rowsOf(machines, suite.checks)
  console.log(tableText(machines, rows))
  results.push({ suite: name, machines, rows })
}
if (!results.length) throw new Error(`no suite has a test of the name ${wanted.join(', ')}`)

if (values.json !== undefined) {
  const report = {
    version: 2,
    runs,
    clock,
    node: process.version,
    processor: `${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}`,
    suites: results.map(({ suite, machines, rows }) => ({
      suite,
      machines: machines.map((one, n) => ({ ...one, ...(n > 0 ? { geometricMean: geometricMean(rows, n) } : {}) })),
      rows,
    })),
  }
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`)
}
if (values.plot !== undefined) {
  for (const { suite, machines, rows } of results) {
    const svg = plot(machines, rows)
    const file = results.length > 1 ? values.plot.replace(/(\.svg)?$/, `-${suite}.svg`) : values.plot
    if (svg) writeFileSync(file, svg)
    else say('no plot: there are no two machines to compare')
  }
}
if (
  results.some(
    ({ machines, rows }) => machines.some(({ problem }) => problem) || rows.some(({ wrong }) => wrong.includes(true)),
  )
) {
  process.exitCode = 1
}

function listOf(text: string): string[] {
  return text.split(',').filter((one) => one !== '')
}

/** QEMU first: it is what the others are measured by. */
function machinesFor({ guest: { kernel, initrd }, memory, tests }: PreparedSuite): Machine[] {
  const select = tests.length ? [`tests=${tests.join(',')}`] : []
  const cmdline = ['console=ttyS0', 'panic=-1', 'quiet', ...select].join(' ')
  const list: Machine[] = []
  if (isInstalled(QEMU)) {
    const command = `${QEMU} -M q35 -accel tcg -cpu ${values.cpu} -m ${memory} -nographic -no-reboot`
    list.push(machine('qemu', `${command} -kernel '${kernel}' -initrd '${initrd}' -append '${cmdline}'`))
  }
  const ours = `'${process.execPath}' '${CLI}bin/nonroot.js' run --memory ${memory}`
  const image = `--kernel '${kernel}' --initrd '${initrd}' --cmdline '${cmdline}'`
  list.push(machine('nonroot', `${ours} ${image}`))
  if (values.interpreter) list.push(machine('interpreter', `${ours} --set stack.cpu.tiers=interpreter ${image}`))
  for (const argument of positionals) {
    const cut = argument.indexOf('=')
    if (cut < 1) throw new Error(`a machine is given as NAME='COMMAND', not as ${argument}`)
    const given = `KERNEL='${kernel}' INITRD='${initrd}' CMDLINE='${cmdline}' MEMORY=${memory}`
    list.push(machine(argument.slice(0, cut), `${given}; ${argument.slice(cut + 1)}`))
  }
  return list
}
