/** Before each file of tests. Equal bytes are compared at once: `toEqual` alone takes 40 ms of the processor for 100 KiB. */
import { afterAll, expect, vi } from 'vitest'

// Files share a process: the next one has real time and real functions.
afterAll(() => {
  vi.useRealTimers()
  vi.restoreAllMocks()
})

const bytes = (value: unknown): Uint8Array | undefined => (value instanceof Uint8Array ? value : undefined)

const marked = globalThis as { nonrootComparesBytes?: true }
// Once in a process.
if (!marked.nonrootComparesBytes) {
  marked.nonrootComparesBytes = true
  expect.addEqualityTesters([
    (one: unknown, other: unknown) => {
      const [a, b] = [bytes(one), bytes(other)]
      // Where they differ, the slow way says where.
      return a && b && a.constructor === b.constructor && Buffer.compare(a, b) === 0 ? true : undefined
    },
  ])
}
