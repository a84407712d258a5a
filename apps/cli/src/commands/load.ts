/** Loads a stack file for the commands. */

import { loadFleet, loadStack } from '@nonroot/hypervisor'
import type { Fleet, LoadStackOptions, Stack } from '@nonroot/hypervisor'
import { loadLimitMs, moduleSource } from '../host.ts'

function loading(set: readonly string[]): LoadStackOptions {
  const limit = loadLimitMs()
  return { source: moduleSource(), set, ...(limit === undefined ? {} : { loadLimitMs: limit }) }
}

/** With the stacks of all its VMs. */
export const loadAll = (file: string, set: readonly string[]): Promise<Fleet> => loadFleet(file, loading(set))

export const load = (file: string, set: readonly string[]): Promise<Stack> => loadStack(file, loading(set))
