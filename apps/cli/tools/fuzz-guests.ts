/**
 * Hostile guests against a whole stack: bad images, absurd memory, guests that program every port and register at random or run random
 * bytes, under EPT and shadow paging. Each must end in a clear refusal, in a fault of the guest, or go on until it is stopped; an error
 * of ours or a thread that does not answer is a bug, and is named by its seed.
 *
 *   node --conditions=@nonroot/source tools/fuzz-guests.ts --minutes 10 --seed 1 [--linux FILE] [--multiboot FILE] [--pvh FILE] [--firmware FILE] [--initrd FILE]
 */

import { parseArgs } from 'node:util'
import { fileURLToPath } from 'node:url'
import { Worker } from 'node:worker_threads'
import type { FuzzJob, FuzzMessage } from './fuzz/worker.ts'

const PROTOCOLS = ['linux', 'multiboot', 'pvh', 'firmware'] as const
const file = { type: 'string', multiple: true, default: [] as string[] } as const
const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    cases: { type: 'string', default: 'Infinity' },
    linux: file,
    multiboot: file,
    pvh: file,
    firmware: file,
    initrd: file,
  },
})
const own = fileURLToPath(new URL('../../../guests/demo/demo.elf', import.meta.url))
const files = PROTOCOLS.flatMap((protocol) => values[protocol].map((path) => ({ protocol, path })))
files.push({ protocol: 'multiboot', path: own }, { protocol: 'pvh', path: own })

/** Over a guest's own limit: how long making a host and giving way may take on a loaded machine. */
const GRACE_MS = 120_000

const end = Date.now() + Number(values.minutes) * 60_000
const lastSeed = Number(values.seed) + Number(values.cases)
const outcomes = new Map<string, number>()
let bugs = 0
let count = 0

/** Runs cases from a seed on, until time is over or one hangs; gives the seed to go on with. */
function runFrom(first: number): Promise<number> {
  return new Promise((resolve) => {
    const worker = new Worker(new URL('./fuzz/worker.ts', import.meta.url), {
      workerData: { first, files, initrds: values.initrd } satisfies FuzzJob,
    })
    let watchdog: NodeJS.Timeout | undefined
    let [seed, family] = [first, '']
    const leave = (next: number): void => {
      clearTimeout(watchdog)
      void worker.terminate().then(() => resolve(next))
    }
    const bug = (what: string): void => {
      bugs++
      console.error(`seed ${seed} (${family}): ${what}`)
    }
    worker.on('message', (message: FuzzMessage) => {
      if (message.type === 'begin') {
        ;({ seed, family } = message)
        watchdog = setTimeout(() => {
          bug('hangs')
          leave(seed + 1)
        }, message.limitMs + GRACE_MS)
        return
      }
      clearTimeout(watchdog)
      count++
      if (message.bug) bug(message.outcome)
      const key = `${family}: ${message.bug ? 'BUG' : message.outcome}`
      outcomes.set(key, (outcomes.get(key) ?? 0) + 1)
      if (Date.now() >= end || seed + 1 >= lastSeed) leave(Infinity)
    })
    worker.on('error', (error) => {
      bug(`ends the thread: ${(error as Error).stack ?? String(error)}`)
      leave(seed + 1)
    })
  })
}

for (let seed = Number(values.seed); seed < lastSeed;) seed = await runFrom(seed)
console.log(`${count} guests from seed ${values.seed}, ${bugs} bugs`)
for (const [outcome, times] of [...outcomes].toSorted()) console.log(`${String(times).padStart(6)}  ${outcome}`)
process.exitCode = bugs === 0 ? 0 : 1
