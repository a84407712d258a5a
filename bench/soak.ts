/**
 * A long mixed load in a Debian guest, and what it does to this process's memory: verdict at the end, exit status 1 where memory grows
 * without bound or the guest found something wrong.
 *
 *     npm run soak -- [--minutes 60] [--every 10] [--json FILE]
 *
 * The guest goes round: stress-ng with verification, fork storms, self-modifying code and page faults of guestbench, gzip there and back,
 * files through the page cache, which is dropped in between.
 */
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { MetricSample } from '@nonroot/contracts'
import { createFlow } from '@nonroot/host-node'
import { defaultStack } from '../apps/cli/src/host.ts'
import { VmHandle, VmThread } from '../apps/cli/src/run/vm-handle.ts'
import { soakGuest } from './soak-guest.ts'
import { isBounded, type Reading } from './soak-verdict.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '60' },
    every: { type: 'string', default: '10' },
    json: { type: 'string' },
  },
})
const minutes = Number(values.minutes)
const every = Number(values.every)
if (!(minutes > 0 && every > 0)) throw new Error('--minutes and --every are positive numbers')
const MEGABYTE = 1e6

const guest = await soakGuest((text) => console.error(text))
const setting = {
  use: '@nonroot/boot',
  linux: { kernel: guest.kernel, initrd: guest.initrd, cmdline: 'console=ttyS0 panic=-1 quiet' },
}
const readings: Reading[] = []
const failures: string[] = []
let rounds = 0
let rest = ''
let peakRss = 0
let ended = false

const flow = createFlow()
const vm = new VmHandle(flow, {
  onOutput(bytes, done) {
    const lines = (rest + Buffer.from(bytes).toString('latin1')).split('\n')
    rest = lines.pop()!
    for (const line of lines) hear(line.trim())
    done()
  },
  onLog: (level, message) => console.log(`${level}: ${message}`),
  onStarted: () => {},
  onTrace: () => {},
})
const thread = new VmThread()
const job = {
  name: 'soak',
  stackFile: defaultStack(),
  set: ['machine.memory="512 MiB"', `boot=${JSON.stringify(setting)}`],
  planned: [],
  announced: undefined,
  interactive: false,
  trace: false,
  flow,
}
thread.start({ logLevel: 'warn' }, [{ handle: vm, job }])

function hear(line: string): void {
  const round = /^SOAK round (\d+)/.exec(line)
  if (round) rounds = Number(round[1])
  if (/^SOAK FAILED|Kernel panic|BUG:|Oops|segfault|general protection/.test(line)) failures.push(line)
  if (line.startsWith('SOAK')) console.log(line)
}

const started = performance.now()
const timer = setInterval(() => void look(), every * 1000)
const end = await Promise.race([
  vm.ended
    .finally(() => (ended = true))
    .then(
      ({ end: how }) =>
        `the guest ended: ${JSON.stringify(how, (_, value: unknown) => (typeof value === 'bigint' ? String(value) : value))}`,
    ),
  new Promise<undefined>((resolve) => setTimeout(() => resolve(undefined), minutes * 60_000)),
])
clearInterval(timer)
await look()
vm.close()
await thread.end()
if (end !== undefined) failures.push(end)
tell()

async function look(): Promise<void> {
  // A guest that has ended does not answer.
  const samples = ended ? undefined : await vm.request('stats')
  if (!samples) return
  const { rss } = process.memoryUsage()
  peakRss = Math.max(peakRss, rss)
  const value = (name: string): number => samples.find((sample: MetricSample) => sample.name === name)?.value ?? 0
  const tier = (name: string): number => value(`vcpu0.tiers.${name}`)
  const reading: Reading = {
    seconds: Math.round((performance.now() - started) / 1000),
    rss,
    arena: tier('arenaUsed'),
    regions: tier('regionsLive'),
    modules: tier('modules') - tier('modulesCollected'),
    instructions: value('vcpu0.instructions'),
  }
  readings.push(reading)
  console.log(
    [
      `${reading.seconds} s`,
      `RSS ${(rss / MEGABYTE).toFixed(0)} MB`,
      `decoded code ${(reading.arena / MEGABYTE).toFixed(1)} MB (dropped as a whole ${tier('arenaResets')} times)`,
      `${reading.regions} regions live of ${tier('regions')} compiled`,
      `${reading.modules} modules live of ${tier('modules')}`,
      `guest memory ${((value('vm.residentFrames') * 4096) / MEGABYTE).toFixed(0)} MB`,
      `${(reading.instructions / 1e9).toFixed(1)} G instructions`,
      `round ${rounds}`,
    ].join(', '),
  )
}

function tell(): void {
  const verdict = isBounded(readings)
  const last = readings.at(-1)
  console.log(
    `\n${rounds} rounds, ${((last?.instructions ?? 0) / 1e9).toFixed(0)} G instructions in ${last?.seconds ?? 0} s`,
  )
  for (const { what, before, after, bounded } of verdict) {
    console.log(
      `${what}: most in the second quarter ${before.toFixed(1)}, in the last ${after.toFixed(1)}: ${bounded ? 'bounded' : 'GROWS'}`,
    )
  }
  console.log(`most memory of the process: ${(peakRss / MEGABYTE).toFixed(0)} MB`)
  for (const failure of failures) console.log(`FAILED: ${failure}`)
  const good = verdict.length > 0 && verdict.every(({ bounded }) => bounded) && !failures.length
  console.log(good ? 'verdict: bounded' : verdict.length ? 'verdict: NOT good' : 'verdict: none, too short')
  if (values.json !== undefined)
    writeFileSync(values.json, `${JSON.stringify({ version: 1, minutes, rounds, failures, verdict, readings })}\n`)
  process.exitCode = good ? 0 : 1
}
