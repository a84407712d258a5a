/**
 * VMs' memories on threads of their own take and give frames of one pool: none may be lost, none may have two owners, and none may hold what its
 * owner did not write. Threads hand shared frames to each other, run the pool dry, and close and open it.
 *
 *   npm run fuzz:frames -- --minutes 10 --seed 1 [--threads 2] [--rounds N]
 *
 * A round is a fresh memory and 20,000 steps of each thread. What threads do is decided by the seed; how they meet is not.
 */

import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { createHostMemory } from '../src/memory/index.ts'
import { COUNTERS, type FramesJob, type FramesResult } from './frames/worker.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: 'Infinity' },
    rounds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
    threads: { type: 'string', default: '2' },
    steps: { type: 'string', default: '20000' },
  },
})
const end = Date.now() + Number(values.minutes) * 60_000
const threads = Number(values.threads)
const totals = Object.fromEntries(COUNTERS.map((name) => [name, 0]))
let [round, bugs] = [0, 0]
const progress = setInterval(() => console.log(text()), 60_000)
progress.unref()

const text = (): string =>
  `${round} rounds of ${threads} threads: ${COUNTERS.map((name) => `${totals[name]} ${name}`).join(', ')}; ${bugs} bugs`

const first = Number(values.seed)
while (round < Number(values.rounds) && Date.now() < end) {
  const seed = first + round++
  // Between plenty and next to nothing.
  const host = createHostMemory((1 + (seed % 5)) * 2 ** 20)
  const free = host.freeFrames
  const shared = {
    memory: host.memory,
    owners: new Int32Array(new SharedArrayBuffer(host.totalFrames * 4)),
    mailbox: new Int32Array(new SharedArrayBuffer(16 * 4)),
  }
  const results = await Promise.all(
    Array.from({ length: threads }, (_, thread) => run({ ...shared, thread, seed, steps: Number(values.steps) })),
  )
  for (const { counters, bug } of results) {
    COUNTERS.forEach((name, index) => (totals[name]! += counters[index]!))
    if (bug !== undefined) report(seed, bug)
  }
  // Free what was never fetched.
  for (const frame of shared.mailbox) if (frame !== 0) host.freeFrame(frame as never)
  if (host.freeFrames !== free) report(seed, `${free - host.freeFrames} of ${free} frames are lost`)
  const owned = shared.owners.findIndex((owner) => owner !== 0)
  if (owned >= 0) report(seed, `frame ${owned} still has the owner ${shared.owners[owned]}`)
  const all = new Set<number>()
  for (let frame = host.allocateFrame(); frame !== undefined; frame = host.allocateFrame()) all.add(frame)
  if (all.size !== free) report(seed, `${all.size} of ${free} frames can be taken at the end`)
}
console.log(text())
process.exitCode = bugs === 0 ? 0 : 1

function report(seed: number, what: string): void {
  bugs++
  console.error(`seed ${seed}: ${what}`)
}

function run(workerData: FramesJob): Promise<FramesResult> {
  return new Promise((resolve, reject) => {
    const worker = new Worker(new URL('./frames/worker.ts', import.meta.url), { workerData })
    worker.once('message', resolve)
    worker.once('error', reject)
  })
}
