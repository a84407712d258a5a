/**
 * guestbench under this project, under QEMU's TCG where it is installed, and under any other machine named, side by side.
 *
 *     npm run bench -- [--runs 3] [--tests alu,call] [--json FILE] [--plot FILE.svg] [--limit SECONDS] [NAME='COMMAND' ...]
 *
 * A COMMAND shows the guest's console on its standard output; $KERNEL, $INITRD and $CMDLINE in it stand for the guest. Figures are the
 * best of the runs; machines take turns run by run, so that what else the computer does meets all of them.
 */
import { existsSync, writeFileSync } from 'node:fs'
import { availableParallelism, cpus } from 'node:os'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { benchGuest, type BenchGuest } from './guest.ts'
import { isInstalled, machine, nativeChecks, runOnce, type Machine } from './machine.ts'
import { plot } from './plot.ts'
import { geometricMean, rowsOf, tableText } from './report.ts'

const QEMU = 'qemu-system-x86_64'
const CLI = fileURLToPath(new URL('../apps/cli/', import.meta.url))
const say = (text: string): void => void process.stderr.write(`${text}\n`)

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    runs: { type: 'string', default: '3' },
    tests: { type: 'string', default: '' },
    json: { type: 'string' },
    plot: { type: 'string' },
    limit: { type: 'string', default: '420' },
  },
})
const runs = Number(values.runs)
const limit = Number(values.limit)
if (!Number.isInteger(runs) || runs < 1 || !(limit > 0)) throw new Error('--runs and --limit are positive numbers')
const tests = values.tests.split(',').filter((test) => test !== '')

const guest = await benchGuest(say)
const machines = machinesFor(guest)
const expected = nativeChecks(guest.guestbench, tests)
if (!Object.keys(expected).length)
  say('no checksums: guestbench does not run on this computer, so machines are only compared with the first')

for (let run = 1; run <= runs; run++) {
  for (const one of machines) {
    say(`run ${run} of ${runs}: ${one.name}`)
    await runOnce(one, limit * 1000)
  }
}

const rows = rowsOf(machines, expected)
console.log(tableText(machines, rows))
if (values.json !== undefined) {
  const report = {
    version: 1,
    runs,
    node: process.version,
    processor: `${availableParallelism()} × ${cpus()[0]?.model ?? 'unknown'}`,
    machines: machines.map((one, n) => ({ ...one, ...(n > 0 ? { geometricMean: geometricMean(rows, n) } : {}) })),
    rows,
  }
  writeFileSync(values.json, `${JSON.stringify(report, undefined, 2)}\n`)
}
if (values.plot !== undefined) {
  const svg = plot(machines, rows)
  if (svg) writeFileSync(values.plot, svg)
  else say('no plot: there are no two machines to compare')
}
if (machines.some(({ problem }) => problem) || rows.some(({ wrong }) => wrong.includes(true))) process.exitCode = 1

/** QEMU first: it is what the others are measured by. */
function machinesFor({ kernel, initrd }: BenchGuest): Machine[] {
  const cmdline = ['console=ttyS0', 'panic=-1', 'quiet', ...(tests.length ? [`tests=${tests.join(',')}`] : [])].join(
    ' ',
  )
  const list: Machine[] = []
  if (isInstalled(QEMU)) {
    list.push(
      machine(
        'qemu',
        `${QEMU} -M q35 -accel tcg -cpu max -m 512 -nographic -no-reboot -kernel '${kernel}' -initrd '${initrd}' -append '${cmdline}'`,
      ),
    )
  } else say(`${QEMU} is not installed: no ratios to it`)
  if (!existsSync(`${CLI}dist/main.js`)) throw new Error('the command is not built: run npm run build first')
  list.push(
    machine(
      'nonroot',
      `'${process.execPath}' '${CLI}bin/nonroot.js' run --memory 512M --kernel '${kernel}' --initrd '${initrd}' --cmdline '${cmdline}'`,
    ),
  )
  for (const argument of positionals) {
    const cut = argument.indexOf('=')
    if (cut < 1) throw new Error(`a machine is given as NAME='COMMAND', not as ${argument}`)
    const command = argument.slice(cut + 1)
    list.push(machine(argument.slice(0, cut), `KERNEL='${kernel}' INITRD='${initrd}' CMDLINE='${cmdline}'; ${command}`))
  }
  return list
}
