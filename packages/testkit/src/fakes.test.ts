/** The fakes pass the suites that the real ones must. */

import { it } from 'vitest'
import {
  createTestClock,
  createTestGuestMemory,
  createTestHostMemory,
  testClock,
  testGuestFrames,
  testGuestMemory,
  testHostMemory,
} from './index.ts'
import type { TestClock } from './index.ts'

testHostMemory(() => createTestHostMemory(128), it)
testGuestMemory(() => {
  const host = createTestHostMemory(512)
  return { host, memory: createTestGuestMemory({ hostMemory: host, ram: 1 << 20 }) }
}, it)
testGuestFrames((options) => {
  const host = createTestHostMemory(600)
  return { host, memory: createTestGuestMemory({ hostMemory: host, ram: 1 << 20, ...options }) }
}, it)
testClock(createTestClock, (clock, ns) => (clock as TestClock).advanceInstructions(ns), it)
