/**
 * Two VMs on a host that has room for one and a half: one fills most of its memory and verifies it (memory-verify.c), the other is
 * idle; each minute they change roles. Under all techniques, and under each alone.
 *
 *     npm run bench:reclaim-turns -- [--turns 4] [--seconds 50] [--memory 512] [--host 640] [--bytes 320] [--minimum 96] [--only swap] [--stress] [--parameters 'init_on_free=1'] [--plot FOLDER]
 *
 * `--stress`: by Debian's stress-ng (--vm, --verify) in its place.
 *
 * A technique that cannot give enough ends a VM: that is a result. The status is 0 if no memory was wrong.
 */
import { execFileSync } from 'node:child_process'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import type { Vm } from '@nonroot/hypervisor'
import { MemoryHistory } from '../apps/cli/src/control/memory-plot.ts'
import { Shell, startReclaimHost } from './reclaim-host.ts'

const { values } = parseArgs({
  options: {
    turns: { type: 'string', default: '4' },
    seconds: { type: 'string', default: '50' },
    memory: { type: 'string', default: '512' },
    host: { type: 'string', default: '640' },
    bytes: { type: 'string', default: '320' },
    minimum: { type: 'string', default: '96' },
    only: { type: 'string' },
    stress: { type: 'boolean', default: false },
    parameters: { type: 'string', default: '' },
    plot: { type: 'string' },
  },
})
const FRAME = 4096
/** MiB that a VM with a memory device has beside it. */
const BESIDE_DEVICE = 128
const mib = (frames: number): string => ((frames * FRAME) / 2 ** 20).toFixed(0)
const minimum = Number(values.minimum)
const folder = mkdtempSync(join(tmpdir(), 'nonroot-turns-'))
const file = { file: join(folder, 'swap'), size: '1 GiB' }
const use = '@nonroot/mem-reclaim'
const POLICIES: Record<string, object> = {
  all: { use, swap: file },
  balloon: { use, policy: 'balloon' },
  // All but 128 MiB of a VM is a memory device's.
  unplug: { use, policy: 'unplug' },
  share: { use, policy: 'share' },
  swap: { use, policy: 'swap', ...file },
}
const program = join(folder, 'memory-verify')
execFileSync('gcc', ['-O2', '-static', '-o', program, join(import.meta.dirname, 'memory-verify.c')])
const command = (turn: number): string =>
  values.stress
    ? `stress-ng --vm 1 --vm-bytes ${values.bytes}M --vm-keep --vm-method rand-set --verify --metrics-brief -t ${values.seconds}`
    : `memory-verify ${values.bytes} ${values.seconds} ${turn}`
const work = (turn: number): string =>
  `${command(turn)}; echo "turn${turn}=$? oom=$(dmesg | grep -c 'Killed process')"\n`
const sleep = (ms: number): Promise<false> => new Promise((resolve) => void setTimeout(() => resolve(false), ms))

interface Guest {
  readonly vm: Vm
  readonly shell: Shell
  readonly ended: Promise<string>
  end: string | undefined
  least: number
}

async function measure(name: string, policy: object): Promise<boolean> {
  const host = await startReclaimHost({
    ...{ vms: 2, host: Number(values.host), clock: 'wall' },
    ...(name === 'unplug'
      ? { memory: BESIDE_DEVICE, pluggable: Number(values.memory) - BESIDE_DEVICE }
      : { memory: Number(values.memory) }),
    ...{
      parameters: values.parameters.split(' '),
      reclaim: [policy],
      include: values.stress ? ['stress-ng'] : [],
      files: { 'usr/bin/memory-verify': readFileSync(program) },
    },
  })
  const { hypervisor } = host
  const { hostMemory } = hypervisor
  const metric = (end: string): number => hypervisor.samples().find((sample) => sample.name.endsWith(end))?.value ?? 0
  const guests: Guest[] = []
  const history = new MemoryHistory()
  const began = performance.now()
  const say = (text: string): void =>
    console.log(`${name} ${((performance.now() - began) / 1000).toFixed(0)} s: ${text}`)
  for (const vmName of ['one', 'two']) {
    const shell = new Shell()
    const reclaim = { group: 'debian', minimumFrames: (minimum * 2 ** 20) / FRAME }
    const vm = await hypervisor.createVm({ name: vmName, console: shell, reclaim })
    const ended = vm.run().then((end) => (end.state === 'crashed' ? end.reason : end.state))
    const guest: Guest = { vm, shell, ended, end: undefined, least: Infinity }
    void ended.then((end) => {
      guest.end = end
      say(`${vmName} has ended: ${end}`)
      // Its memory is for the other one.
      void vm.dispose()
    })
    guests.push(guest)
    const booted = await Promise.race([
      shell.expect(/_nonroot:begin/).then(() => true),
      ended.then(() => false),
      sleep(300_000),
    ])
    say(`${vmName} ${booted ? 'has booted' : `has not booted: ${shell.text.slice(-300)}`}`)
  }
  const sampling = setInterval(() => {
    const { guestFrames, freeGuestFrames } = hostMemory
    const uses = guests.filter(({ end }) => end === undefined).map((guest) => ({ guest, use: guest.vm.memory() }))
    for (const {
      guest,
      use: { residentFrames },
    } of uses)
      guest.least = Math.min(guest.least, residentFrames)
    const vms = uses.map(({ guest, use: memory }) => ({ name: guest.vm.name, memory }))
    history.add({ seconds: (performance.now() - began) / 1000, host: { guestFrames, freeGuestFrames }, vms })
  }, 1000)
  const results: string[] = []
  let isRight = true
  for (let turn = 0; turn < Number(values.turns); turn++) {
    const { shell, vm, end, ended } = guests[turn % 2]!
    if (end !== undefined) {
      results.push('-')
      continue
    }
    const [usedBefore, faultsBefore] = [process.cpuUsage(), metric('swap.faults')]
    shell.send(work(turn))
    const pattern = new RegExp(`turn${turn}=(\\d+) oom=(\\d+)`)
    await Promise.race([shell.expect(pattern), ended, sleep(Number(values.seconds) * 1000 + 240_000)])
    const [, status, killed] = pattern.exec(shell.text) ?? []
    const [passes, wrong] = [...shell.text.matchAll(/(\d+) passes, (\d+) wrong/g)].at(-1)?.slice(1) ?? []
    // stress-ng's status 2: a stressor failed.
    if ((wrong !== undefined && wrong !== '0') || (values.stress && status === '2')) isRight = false
    const operations = [...shell.text.matchAll(/stress-ng: .* vm +(\d+) /g)].at(-1)?.[1]
    results.push(
      status === '0' && killed === '0'
        ? values.stress
          ? `verified, ${operations} operations`
          : `${passes} passes`
        : status === undefined
          ? 'no end'
          : `status ${status}, ${killed} killed`,
    )
    const sizes = guests.map((one) => `${one.vm.name} ${one.end ?? mib(one.vm.memory().residentFrames)}`).join(', ')
    const { user, system } = process.cpuUsage(usedBefore)
    say(
      `turn ${turn} of ${vm.name}: ${results.at(-1)}; ${sizes}; ${metric('swap.faults') - faultsBefore} pages came back, ${((user + system) / 1e6).toFixed(0)} s of processor time`,
    )
  }
  clearInterval(sampling)
  const gave: Record<string, number> = {}
  for (const { vm } of guests.filter(({ end }) => end === undefined))
    for (const { technique, frames } of vm.memory().techniques) gave[technique] = (gave[technique] ?? 0) + frames
  console.log(
    `| ${name} | ${results.join(', ')} | ${guests.map(({ least }) => (Number.isFinite(least) ? mib(least) : '-')).join(', ')} | ${Object.entries(
      gave,
    )
      .map(([technique, frames]) => `${technique} ${mib(frames)}`)
      .join(
        ', ',
      )} | ${metric('swap.faults')}, ${metric('swap.refaults')} | ${guests.map(({ end }) => end ?? 'runs').join('; ')} |`,
  )
  if (values.plot)
    writeFileSync(
      join(values.plot, `memory-${name}.svg`),
      history.svg(`Two VMs of ${values.memory} MiB on ${values.host} MiB: ${name}`),
    )
  for (const { vm } of guests) vm.stop()
  await Promise.all(guests.map(({ ended }) => ended))
  await host.dispose()
  return isRight
}

console.log(
  '| techniques | turns | least resident MiB of each | given at the end, MiB | pages back, within 1 s | VMs |\n|---|---|---|---|---|---|',
)
let isRight = true
for (const [name, policy] of Object.entries(POLICIES))
  if (values.only === undefined || values.only === name) isRight = (await measure(name, policy)) && isRight
rmSync(folder, { recursive: true, force: true })
process.exit(isRight ? 0 : 1)
