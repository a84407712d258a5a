/**
 * Hostile virtio drivers against every virtio device, over both transports and rings, on real back ends: files, qcow2, a folder of the host.
 * A case is a device and a driver gone wrong; an exception, a thread that does not answer, a change outside the shared folder or memory
 * that grows without end is a bug, and is named by its seed.
 *
 *   npm run fuzz:virtio -- --minutes 60 --seed 1 [--cases 1] [--device virtio-9p]
 */

import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import type { VirtioFuzzJob, VirtioFuzzMessage } from './fuzz/virtio-worker.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    cases: { type: 'string', default: 'Infinity' },
    device: { type: 'string' },
  },
})

/** A case takes milliseconds. On a machine that has other work to do it may take its time, but not minutes. */
const LIMIT_MS = 120_000
const PROGRESS_MS = 60_000
/** After each so many cases a fresh thread, whose memory is compared with what the last one had at the end. */
const CASES_A_THREAD = 2000
/** What a thread may come to hold, over what it held after its first hundred cases. */
const MOST_GROWTH = 256 * 2 ** 20

const folder = mkdtempSync(join(tmpdir(), 'nonroot-fuzz-virtio-'))
const began = Date.now()
const end = began + Number(values.minutes) * 60_000
const first = Number(values.seed)
const last = first + Number(values.cases)
const cases = new Map<string, number>()
const totals = { buffers: 0, requests: 0, failures: 0, rounds: 0 }
let [bugs, count, most] = [0, 0, 0]

const text = (): string => {
  const minutes = ((Date.now() - began) / 60_000).toFixed(1)
  const { buffers, failures, rounds } = totals
  const memory = `${Math.round(most / 2 ** 20)} MiB at most`
  return `${minutes} min: ${count} devices, ${rounds} driver steps, ${buffers} buffers taken, ${failures} needed a reset, ${memory}, ${bugs} bugs`
}
const progress = setInterval(() => console.log(text()), PROGRESS_MS)

/** Runs cases from a seed on; gives the seed to go on with. */
function runFrom(from: number): Promise<number> {
  return new Promise((resolve) => {
    const until = Math.min(from + CASES_A_THREAD, last)
    const job: VirtioFuzzJob = { first: from, last: until, folder, device: values.device }
    const worker = new Worker(new URL('./fuzz/virtio-worker.ts', import.meta.url), { workerData: job })
    let watchdog: NodeJS.Timeout | undefined
    let [seed, name, base, left] = [from, '', 0, false]
    const leave = (next: number): void => {
      left = true
      clearTimeout(watchdog)
      void worker.terminate().then(() => resolve(next))
    }
    const bug = (what: string): void => {
      bugs++
      console.error(`seed ${seed} (${name}): ${what}`)
    }
    worker.on('message', (message: VirtioFuzzMessage) => {
      // What it still said before it was ended.
      if (left) return
      clearTimeout(watchdog)
      if (message.type === 'begin') {
        ;({ seed, name } = message)
        watchdog = setTimeout(() => {
          bug('hangs')
          leave(seed + 1)
        }, LIMIT_MS)
        return
      }
      count++
      cases.set(name, (cases.get(name) ?? 0) + 1)
      for (const key of ['buffers', 'failures', 'rounds'] as const) totals[key] += message[key]
      if (message.bug) bug(message.bug)
      const { rss } = process.memoryUsage()
      most = Math.max(most, rss)
      if (seed - from === 100) base = rss
      if (base && rss - base > MOST_GROWTH) {
        bug(`memory grew from ${base} to ${rss} bytes`)
        return leave(seed + 1)
      }
      if (Date.now() >= end || seed + 1 >= until) leave(Date.now() >= end ? Infinity : seed + 1)
    })
    worker.on('error', (error) => {
      bug(`ends the thread: ${(error as Error).stack ?? String(error)}`)
      leave(seed + 1)
    })
  })
}

console.log(`virtio drivers gone wrong, from seed ${first}, for ${values.minutes} min`)
for (let seed = first; seed < last;) seed = await runFrom(seed)
clearInterval(progress)
rmSync(folder, { recursive: true, force: true })
console.log(`done: ${text()}`)
for (const [name, times] of [...cases].toSorted()) console.log(`${String(times).padStart(8)}  ${name}`)
process.exitCode = bugs === 0 ? 0 : 1
