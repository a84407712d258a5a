/** The VMs of a configuration: each has the file's own keys, and what its entry in `vms` changes of them. */

import { formatSize, NonrootError } from '@nonroot/contracts'
import { mostRam } from '../memory/index.ts'
import { validate } from './config-load.ts'
import { child, merge, nodeAt, toValue } from './config-tree.ts'
import type { ConfigMap, ConfigNode } from './config-tree.ts'
import { throwAll } from './issues.ts'
import type { LoadedConfig } from './loaded-config.ts'

/** The configuration of one VM of a host. */
export interface VmConfig {
  readonly name: string
  /** As if it were the only VM of its file: positions are those of the keys in the files. */
  readonly loaded: LoadedConfig
}

/** The host's part of a configuration: without its VMs. */
export const hostConfig = ({ file, tree, config: { vms: _, ...config } }: LoadedConfig): LoadedConfig => ({
  file,
  config,
  tree: without(tree, 'vms'),
})

/** One for each entry of `vms`; undefined without that key. Throws what is wrong in any of them, and what they cannot have together. */
export function vmConfigs(loaded: LoadedConfig): VmConfig[] | undefined {
  const list = child(loaded.tree, 'vms')
  if (list?.kind !== 'list') return undefined
  const host = hostConfig(loaded)
  const errors = new Map<string, NonrootError>()
  const vms: VmConfig[] = []
  for (const item of list.items) {
    const name = toValue(child(item, 'name')!) as string
    const tree = merge(bootable(host.tree, item), without(item, 'name'))
    try {
      vms.push({ name, loaded: { file: loaded.file, config: validate(tree), tree } })
    } catch (error) {
      for (const one of namedErrors(name, error)) errors.set(one.describe(), one)
    }
  }
  if (errors.size === 0) for (const one of checkMinimums(loaded, vms)) errors.set(one.describe(), one)
  throwAll([...errors.values()], 'errors in the VMs')
  return vms
}

/** The error, or all that it contains, with the VM's name in the message. Rethrows what is none of ours. */
export function namedErrors(vm: string, error: unknown): NonrootError[] {
  if (!(error instanceof NonrootError)) throw error
  return (error.errors.length ? error.errors : [error]).map(
    (one) =>
      new NonrootError({
        code: one.code,
        message: `VM ${vm}: ${one.message}`,
        ...(one.thing === undefined ? {} : { thing: one.thing }),
        ...(one.value === undefined ? {} : { value: one.value }),
        ...(one.remedy === undefined ? {} : { remedy: one.remedy }),
        ...(one.location === undefined ? {} : { location: one.location }),
        cause: one,
      }),
  )
}

/** What is never taken from VMs must be there. */
function checkMinimums({ tree, config }: LoadedConfig, vms: readonly VmConfig[]): NonrootError[] {
  const { memory } = config.host
  const minimums = vms.reduce((sum, { loaded }) => sum + (loaded.config.reclaim?.minimum ?? 0), 0)
  const errors: NonrootError[] = []
  if (memory !== undefined && minimums > memory)
    errors.push(
      new NonrootError({
        code: 'config.schema',
        message: `host.memory: ${formatSize(memory)} is less than the ${formatSize(minimums)} that its VMs are never to go below`,
        thing: 'host.memory',
        value: memory,
        remedy: 'make host.memory larger, or reclaim.minimum of the VMs smaller',
        location: nodeAt(tree, ['host', 'memory']).at,
      }),
    )
  for (const { name, loaded } of vms) {
    const { minimum = 0, maximum = Infinity } = loaded.config.reclaim ?? {}
    const most = Math.min(maximum, mostRam(loaded.config.machine))
    if (minimum > most)
      errors.push(
        new NonrootError({
          code: 'config.schema',
          message: `VM ${name}: reclaim.minimum: ${formatSize(minimum)} is more than the ${formatSize(most)} that it may have`,
          thing: 'reclaim.minimum',
          value: minimum,
          remedy: 'make it smaller, or machine.memory (reclaim.maximum) larger',
          location: nodeAt(loaded.tree, ['reclaim', 'minimum']).at,
        }),
      )
  }
  return errors
}

/** A boot protocol of the VM's own takes the place of the file's. */
function bootable(host: ConfigNode, vm: ConfigNode): ConfigNode {
  const [theirs, own] = [child(host, 'boot'), child(vm, 'boot')]
  if (theirs?.kind !== 'map' || own?.kind !== 'map') return host
  const isSame = [...own.entries.keys()].every((key) => key === 'use' || theirs.entries.has(key))
  return isSame ? host : without(host, 'boot')
}

function without(tree: ConfigNode, key: string): ConfigMap {
  const { entries, at } = tree as ConfigMap
  return { kind: 'map', entries: new Map([...entries].filter(([name]) => name !== key)), at }
}
