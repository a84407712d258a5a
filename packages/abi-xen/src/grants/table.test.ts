import { createTestHostMemory } from '@nonroot/testkit'
import { expect, it } from 'vitest'
import { GrantTable } from './table.ts'

it('gives back the host frames that it took at its end, and clears them at a reset', () => {
  const host = createTestHostMemory(64)
  const free = host.freeFrames
  const table = new GrantTable(host, { shareFrame: (frame) => frame })
  const [first] = table.setup(3)!
  expect([table.frameCount, host.freeFrames]).toEqual([3, free - 3])
  table.seed(0, 5)
  table.reset()
  expect([
    table.frameCount,
    host.bytes.subarray(first! * 4096, (first! + 1) * 4096).every((byte) => byte === 0),
  ]).toEqual([0, true])
  table.dispose()
  expect(host.freeFrames).toBe(free)
})
