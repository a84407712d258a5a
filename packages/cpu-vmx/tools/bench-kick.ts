/**
 * How long a vCPU takes to leave guest code when another thread kicks it: the time from `post` until the era says that it is outside.
 *
 *     npm run bench:kick [-- --tries 1000 --between 2]
 */
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import { Worker } from 'node:worker_threads'
import { KICKED_GUESTS, kickedGuest } from '../src/testing/kicked-guests.ts'
import type { KickOrder } from '../src/testing/kick-thread.ts'

const { values } = parseArgs({ options: { tries: { type: 'string' }, between: { type: 'string' } } })
const tries = Number(values.tries ?? 1000)
const betweenMs = Number(values.between ?? 2)

console.log(`ms until the vCPU is out, ${tries} kicks        median      99 %     worst`)
for (const guest of KICKED_GUESTS) {
  const vcpu = kickedGuest(guest)
  const order: KickOrder = { address: vcpu.kickAddress, tries, betweenMs }
  const thread = new Worker(new URL('../src/testing/kick-thread.ts', import.meta.url), { workerData: order })
  const done = once(thread, 'message')
  await once(thread, 'online')
  for (let n = 0; n < tries; n++) vcpu.run(2_000_000_000)
  const sorted = ((await done) as [number[]])[0].toSorted((left, right) => left - right)
  const at = (share: number): string => sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))]!.toFixed(3).padStart(10)
  console.log(guest.name.padEnd(40) + at(0.5) + at(0.99) + at(1))
  await thread.terminate()
}
