import { it } from 'vitest'
import { gpa } from '@nonroot/contracts'
import { testGuestFrames, testGuestMemory, testHostMemory } from '@nonroot/testkit'
import { DemandGuestMemory } from './guest-memory.ts'
import { createHostMemory, openHostMemory } from './host-memory.ts'

const SIZE = 1 << 20

const create = (options = {}) => {
  const host = createHostMemory(4 * SIZE)
  const memory = new DemandGuestMemory({
    hostMemory: host,
    regions: [{ start: gpa(0), length: SIZE, kind: 'ram' }],
    largeRuns: false,
    ...options,
  })
  return { host, memory }
}

testHostMemory(() => createHostMemory(SIZE), it)
testHostMemory(
  () => openHostMemory(createHostMemory(SIZE).memory),
  (name, run) => it(`opened: ${name}`, run),
)
testGuestMemory(create, it)
testGuestFrames(({ paging, ...options }) => {
  const made = create(options)
  if (paging) made.memory.setPaging(paging)
  return made
}, it)
