/**
 * A paravirtual guest kernel gone wrong against Xen's hypercalls: random and nearly right calls, on two vCPUs, one's in the pieces of the other's.
 * After each call all references to frames and their uses are counted anew from the tables in memory.
 *
 *   npm run fuzz:xen -- --minutes 30 --seed 1 [--rounds 1]
 */

import { parseArgs } from 'node:util'
import { fuzzRound } from './fuzz-xen/run.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    rounds: { type: 'string', default: 'Infinity' },
    seed: { type: 'string', default: '1' },
  },
})
const end = Date.now() + Number(values.minutes) * 60_000
const first = Number(values.seed)
const totals = { calls: 0, refused: 0, continued: 0 }
let [round, bugs] = [0, 0]
while (round < Number(values.rounds) && Date.now() < end && bugs < 10) {
  const seed = first + round++
  const { fault, ...counts } = fuzzRound(seed)
  for (const name of ['calls', 'refused', 'continued'] as const) totals[name] += counts[name]
  if (!fault) continue
  bugs++
  console.log(`seed ${seed}: ${fault}`)
}
console.log(
  `${round} domains, ${totals.calls} calls, ${totals.refused} refused, ${totals.continued} continued; ${bugs} bugs`,
)
process.exitCode = bugs > 0 ? 1 : 0
