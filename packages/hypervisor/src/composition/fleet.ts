/** The stacks of a file with several VMs. */

import type { NonrootError } from '@nonroot/contracts'
import { loadConfig } from './config-load.ts'
import { throwAll } from './issues.ts'
import { resolveStack } from './stack.ts'
import type { LoadStackOptions, Stack } from './stack.ts'
import { hostConfig, namedErrors, vmConfigs } from './vms.ts'

export interface Fleet {
  /** What the VMs share: scheduler, reclaim policies, host memory. */
  readonly host: Stack
  /** One, called `vm0`, if the file has no `vms`. */
  readonly vms: readonly { readonly name: string; readonly stack: Stack }[]
}

/** Reads, validates, resolves, loads and checks the stacks of all VMs of a file. Reports as many errors as possible at once. */
export async function loadFleet(file: string, options: LoadStackOptions): Promise<Fleet> {
  const loaded = await loadConfig(file, options.source, options.set)
  const configs = vmConfigs(loaded)
  const host = await resolveStack(hostConfig(loaded), options)
  if (!configs) return { host, vms: [{ name: 'vm0', stack: host }] }
  const errors: NonrootError[] = []
  const vms: { name: string; stack: Stack }[] = []
  for (const { name, loaded: own } of configs) {
    try {
      vms.push({ name, stack: await resolveStack(own, options) })
    } catch (error) {
      errors.push(...namedErrors(name, error))
    }
  }
  throwAll(errors, 'errors in the VMs')
  return { host, vms }
}
