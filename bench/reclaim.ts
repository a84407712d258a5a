/**
 * Several Debian VMs on a host that has less memory than they have together: what each technique gives, what it costs, and what the process needs.
 *
 *     npm run bench:reclaim -- [--vms 10] [--memory 128] [--host 384] [--policy '{"use":"@nonroot/mem-reclaim"}'] [--idle 30] [--alone] [--json FILE]
 *
 * Each VM boots to a shell, is idle for some seconds, and then answers a command. `--alone`: the VMs belong to no group. `--plot FILE.svg`: who
 * had what over time.
 */
import { createHash } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { parseArgs } from 'node:util'
import type { MemoryUse } from '@nonroot/contracts'
import type { Vm } from '@nonroot/hypervisor'
import { MemoryHistory } from '../apps/cli/src/control/memory-plot.ts'
import { Shell, startReclaimHost } from './reclaim-host.ts'

const { values } = parseArgs({
  options: {
    vms: { type: 'string', default: '10' },
    memory: { type: 'string', default: '128' },
    host: { type: 'string', default: '384' },
    policy: { type: 'string', default: '{"use":"@nonroot/mem-reclaim"}' },
    idle: { type: 'string', default: '30' },
    clock: { type: 'string', default: 'wall' },
    alone: { type: 'boolean', default: false },
    verbose: { type: 'boolean', default: false },
    json: { type: 'string' },
    plot: { type: 'string' },
  },
})
const FRAME = 4096
const mib = (frames: number): string => ((frames * FRAME) / 2 ** 20).toFixed(1)
const count = Number(values.vms)

const reclaim = values.policy === 'none' ? [] : [JSON.parse(values.policy) as { use: string }].flat()
const started = await startReclaimHost({
  vms: count,
  memory: Number(values.memory),
  host: Number(values.host),
  reclaim,
  clock: values.clock,
})
const { hypervisor, subjects, config } = started
const { hostMemory } = hypervisor

const rss = (): number => Math.round(process.memoryUsage.rss() / 1e6)
const used = (): number => hostMemory.guestFrames - hostMemory.freeGuestFrames
const began = performance.now()
const seconds = (): string => `${((performance.now() - began) / 1000).toFixed(0)} s`
const say = (text: string): void => console.log(`${seconds().padStart(6)}  ${text}`)
const sleep = (ms: number): Promise<void> => new Promise((resolve) => void setTimeout(resolve, ms))
const metric = (name: string): number => hypervisor.samples().find((sample) => sample.name.endsWith(name))?.value ?? 0

say(`process: ${rss()} MB before the first VM`)
const vms: { vm: Vm; shell: Shell }[] = []
const ends: Promise<unknown>[] = []
const history = new MemoryHistory()
const sampling = setInterval(() => {
  const { guestFrames, freeGuestFrames } = hostMemory
  const uses = vms.map(({ vm }) => ({ name: vm.name, memory: vm.memory() }))
  history.add({ seconds: (performance.now() - began) / 1000, host: { guestFrames, freeGuestFrames }, vms: uses })
}, 1000)
for (let index = 0; index < count; index++) {
  const shell = new Shell()
  const vm = await hypervisor.createVm({
    name: `vm${index}`,
    console: shell,
    reclaim: values.alone ? {} : { group: 'debian' },
  })
  vms.push({ vm, shell })
  ends.push(
    vm
      .run()
      .then((end) =>
        say(
          `vm${index}: ${JSON.stringify(end, (_, value: unknown) => (typeof value === 'bigint' ? value.toString(16) : value))}`,
        ),
      ),
  )
  if (!(await Promise.race([shell.expect(/_nonroot:begin/).then(() => true), sleep(300_000)])))
    say(`vm${index} does not boot: ${shell.text.slice(-500)}`)
  say(
    `vm${index} has a shell; ${mib(used())} MiB of frames in use, ${mib(hostMemory.apartFrames)} apart, process ${rss()} MB`,
  )
}
await sleep(Number(values.idle) * 1000)

// What sharing could reach at best, counted at once.
const byContent = new Map<string, number>()
let [resident, zeros, distinct] = [0, 0, 0]
const seen = new Set<number>()
for (const { vm } of vms) {
  const frames = subjects.get(vm.name)?.frames
  for (const { start, length, kind } of frames?.regions ?? []) {
    if (kind !== 'ram') continue
    for (let at: number = start; at < start + length; at += FRAME) {
      const frame = frames!.peek(at)
      if (frame === undefined) continue
      resident++
      if (seen.has(frame)) {
        // One of many users of a frame that is shared: its content is counted already.
        byContent.set(String(frame), 0)
        continue
      }
      seen.add(frame)
      const bytes = hostMemory.bytes.slice(frame, frame + FRAME)
      if (bytes.every((byte) => byte === 0)) zeros++
      else {
        const key = createHash('sha1').update(bytes).digest('base64')
        if (!byContent.has(key)) distinct++
        byContent.set(key, (byContent.get(key) ?? 0) + 1)
      }
    }
  }
}
say(
  `pages with a frame: ${mib(resident)} MiB in ${mib(seen.size)} MiB of frames; of the frames ${mib(zeros)} MiB are zeros, ${mib(seen.size - zeros - distinct)} MiB repeat others`,
)

const total: Record<string, number> = {}
console.log(
  '\n| VM | resident MiB | shared | swapped out | ballooned | given by balloon, share, swap |\n|---|---|---|---|---|---|',
)
const uses: MemoryUse[] = []
for (const { vm } of vms) {
  const use = vm.memory()
  uses.push(use)
  for (const { technique, frames } of use.techniques) total[technique] = (total[technique] ?? 0) + frames
  const gave = use.techniques.map(({ frames }) => mib(frames)).join(', ')
  console.log(
    `| ${vm.name} | ${mib(use.residentFrames)} | ${mib(use.sharedFrames)} | ${mib(use.parkedFrames)} | ${mib(use.balloonedFrames)} | ${gave} |`,
  )
}
console.log(
  `\nhost: ${mib(hostMemory.guestFrames)} MiB for guests, ${mib(used())} MiB in use; given: ${Object.entries(total)
    .map(([name, frames]) => `${name} ${mib(frames)} MiB`)
    .join(', ')}`,
)
if (values.verbose)
  for (const { name, value } of hypervisor.samples()) if (name.includes('reclaim')) console.log(`${name} ${value}`)
console.log(
  `scan: ${metric('share.scanned')} pages, ${metric('share.passes')} passes, ${metric('share.costNs') / 1e9} s; tables ${((metric('share.metadata') / (hostMemory.guestFrames * FRAME)) * 100).toFixed(2)} % of host memory`,
)
console.log(
  `swap: ${metric('swap.compressed')} compressed, ${metric('swap.written')} written, ${metric('swap.faults')} back, ${metric('swap.refaults')} of them within 1 s, ${metric('swap.costNs') / 1e9} s`,
)
const { heapUsed, external, arrayBuffers } = process.memoryUsage()
console.log(
  `process: ${rss()} MB, of which JavaScript heap ${Math.round(heapUsed / 1e6)}, external ${Math.round(external / 1e6)}, array buffers ${Math.round(arrayBuffers / 1e6)}`,
)

let answered = 0
for (const { vm, shell } of vms) {
  shell.send('echo answer=$((6*7)) $(cut -d" " -f1 /proc/uptime); grep -c . /proc/meminfo\n')
  if (await Promise.race([shell.expect(/answer=42/).then(() => true), sleep(120_000)])) answered++
  else say(`${vm.name} does not answer: ${vm.state} ${shell.text.slice(-300)}`)
}
say(`${answered} of ${count} answer`)
clearInterval(sampling)
if (values.plot)
  writeFileSync(values.plot, history.svg(`${count} Debian VMs of ${values.memory} MiB on ${values.host} MiB`))
if (values.json)
  writeFileSync(
    values.json,
    JSON.stringify({ config, uses, total, rss: rss(), samples: hypervisor.samples() }, null, 1),
  )
for (const { vm } of vms) vm.stop()
await Promise.all(ends)
await started.dispose()
process.exit(answered === count ? 0 : 1)
