import { it } from 'vitest'
import { testGuestMemory, testHostMemory } from '@nonroot/testkit'
import { gpa } from '@nonroot/contracts'
import { DemandGuestMemory } from './guest-memory.ts'
import { createHostMemory, openHostMemory } from './host-memory.ts'

const SIZE = 1 << 20

testHostMemory(() => createHostMemory(SIZE), it)
testHostMemory(
  () => openHostMemory(createHostMemory(SIZE).memory),
  (name, run) => it(`opened: ${name}`, run),
)
testGuestMemory(() => {
  const host = createHostMemory(4 * SIZE)
  const memory = new DemandGuestMemory({
    hostMemory: host,
    regions: [{ start: gpa(0), length: SIZE, kind: 'ram' }],
    largeRuns: false,
  })
  return { host, memory }
}, it)
