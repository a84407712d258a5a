/**
 * Whether a deterministic guest notices that its pages come and go: Debian runs processes and checksums, once with its memory to itself, once while pages chosen at
 * random are parked or exposed every few milliseconds. Its console and the number of its instructions must be the same.
 *
 *     npm run bench:reclaim-clock -- [--memory 128] [--pages 400] [--processes 300] [--paging ept]
 */
import { parseArgs } from 'node:util'
import { FRAME_SIZE, gpa } from '@nonroot/contracts'
import type { FrameFiller, GuestFrames, HostMemory, Hpa } from '@nonroot/contracts'
import { Shell, startReclaimHost } from './reclaim-host.ts'

const { values } = parseArgs({
  options: {
    memory: { type: 'string', default: '128' },
    pages: { type: 'string', default: '400' },
    processes: { type: 'string', default: '300' },
    paging: { type: 'string', default: 'ept' },
  },
})
const PERIOD_MS = 5
const WAIT_MS = 1
const COMMAND = `i=0; while [ $i -lt ${values.processes} ]; do /bin/true; i=$((i + 1)); done
cat /bin/busybox /bin/busybox | sha256sum; free; grep now /proc/timer_list`
const counts = { parked: 0, exposed: 0, waits: 0 }

/** Keeps content, and takes its time to give it back. */
function createKeeper(): FrameFiller {
  const kept = new Map<number, Uint8Array>()
  return {
    keep: (address, content) => (kept.set(address, content.slice()), true),
    fillNow: (address, into) => into.set(kept.get(address)!),
    fill: async (address) => {
      const content = kept.get(address)!
      await new Promise((resolve) => void setTimeout(resolve, WAIT_MS))
      counts.waits++
      return content
    },
    drop: (address) => void kept.delete(address),
  }
}

/** Parks or exposes so many pages now and then, until it is told to stop. */
function disturb(frames: GuestFrames, host: HostMemory): () => void {
  const keeper = createKeeper()
  const end = Number(values.memory) * 2 ** 20
  let exposed: Hpa[] = []
  const forget = (): void => {
    for (const frame of exposed) host.freeFrame(frame)
    exposed = []
  }
  const timer = setInterval(() => {
    forget()
    for (let left = Number(values.pages); left > 0; left--) {
      const page = gpa(Math.floor((Math.random() * end) / FRAME_SIZE) * FRAME_SIZE)
      if (frames.peek(page) === undefined) continue
      if (left % 3 === 0) {
        const frame = frames.expose(page)
        if (typeof frame !== 'number') continue
        exposed.push(frame)
        counts.exposed++
      } else if (frames.park(page, keeper) === 'done') counts.parked++
    }
  }, PERIOD_MS)
  return () => {
    clearInterval(timer)
    forget()
  }
}

async function run(isDisturbed: boolean): Promise<{ console: string; instructions: number }> {
  const host = await startReclaimHost({
    ...{ vms: 1, memory: Number(values.memory), host: Number(values.memory) + 64, clock: 'deterministic' },
    ...{ reclaim: [{ use: '@nonroot/mem-reclaim', policy: 'share', pagesPerSecond: 1 }], command: ['sh', '-c', COMMAND] },
    paging: values.paging,
  })
  const { hypervisor, subjects } = host
  const shell = new Shell()
  const vm = await hypervisor.createVm({ name: 'one', console: shell })
  const ended = vm.run()
  const stop = isDisturbed ? disturb(subjects.get('one')!.frames, hypervisor.hostMemory) : () => {}
  const end = await ended
  stop()
  if (end.state !== 'stopped' && end.state !== 'exited') console.log(end)
  const [{ instructions }] = vm.info().vcpus as unknown as [{ instructions: number }]
  await host.dispose()
  return { console: shell.text, instructions }
}

const [alone, disturbed] = [await run(false), await run(true)]
const isSame = alone.console === disturbed.console
console.log(
  `${values.paging}: ${alone.instructions} instructions alone, ${disturbed.instructions} while ${counts.parked} pages were parked and ${counts.exposed} exposed, a vCPU waited ${counts.waits} times; the consoles, ${alone.console.length} bytes, are ${isSame ? 'the same' : 'different'}`,
)
if (!isSame) {
  const [ours, theirs] = [alone, disturbed].map((one) => one.console.split('\n'))
  ours!.forEach((line, index) => line === theirs![index] || console.log(`- ${line}\n+ ${theirs![index]}`))
}
process.exit(isSame && alone.instructions === disturbed.instructions ? 0 : 1)
