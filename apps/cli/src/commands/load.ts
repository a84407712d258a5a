/** A stack file as the commands want it. */

import { loadStack } from '@nonroot/hypervisor'
import type { Stack } from '@nonroot/hypervisor'
import { loadLimitMs, moduleSource } from '../host.ts'

export function load(file: string, set: readonly string[]): Promise<Stack> {
  const limit = loadLimitMs()
  return loadStack(file, { source: moduleSource(), set, ...(limit === undefined ? {} : { loadLimitMs: limit }) })
}
