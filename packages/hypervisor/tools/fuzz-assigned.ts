/**
 * Hostile guests with assigned functions or an IOMMU of their own, and hostile peers of vfio-user on either side.
 *
 *   npm run fuzz:assigned -- --minutes 10 [--seed 1] [--only guests|tables|clients|servers]
 *
 * Each seed is a run of one kind; --seed repeats it.
 */

import { parseArgs } from 'node:util'
import { fuzzAssigned } from '../src/testing/assigned-fuzz.ts'
import { fuzzGuestIommu } from '../src/testing/guest-iommu-fuzz.ts'
import { fuzzClients, fuzzServer } from '../src/testing/vfio-user-fuzz.ts'

const { values } = parseArgs({
  options: {
    minutes: { type: 'string', default: '1' },
    seed: { type: 'string', default: '1' },
    only: { type: 'string' },
  },
})
const kinds = { guests: fuzzAssigned, tables: fuzzGuestIommu, clients: fuzzClients, servers: fuzzServer }
const chosen = Object.entries(kinds).filter(([name]) => values.only === undefined || values.only === name)
const end = Date.now() + Number(values.minutes) * 60_000
const runs: Record<string, number> = {}
let bugs = 0
process.on('unhandledRejection', report)
process.on('uncaughtException', report)

for (let seed = Number(values.seed); Date.now() < end; seed++) {
  for (const [name, run] of chosen) {
    runs[name] = (runs[name] ?? 0) + 1
    await run(seed).catch(report)
  }
}
console.log(JSON.stringify({ runs, bugs }))
process.exitCode = bugs === 0 ? 0 : 1

function report(error: unknown): void {
  bugs++
  console.error(error)
}
