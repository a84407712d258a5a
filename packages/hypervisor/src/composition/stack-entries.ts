/** The entries of a configuration that name packages: strategies, devices, the boot protocol. Nothing is loaded here. */

import type { ModuleSource, Role } from '@nonroot/contracts'
import { DEFAULT_HOST_IO } from './config-schema.ts'
import type { StackConfig } from './config-schema.ts'
import type { ConfigPath } from './config-tree.ts'
import { folderOf } from './loaded-config.ts'
import type { LoadedConfig } from './loaded-config.ts'

/** One entry of the configuration that names a package. */
export interface Entry {
  readonly kind: Role | 'device'
  readonly path: ConfigPath
  readonly use: string | undefined
  readonly name: string | undefined
  /** The key that has the name. */
  readonly nameKey: string
  readonly raw: Readonly<Record<string, unknown>>
  /** It is the host's, not the machine's. */
  readonly ofHost?: true
}

/** Keys of an entry that are not its plugin's options. */
export const RESERVED: Record<Role | 'device', readonly string[]> = {
  cpu: ['use', 'strategy'],
  paging: ['use', 'strategy'],
  abi: ['use', 'strategy'],
  io: ['use', 'strategy'],
  host: ['use', 'strategy'],
  scheduler: ['use', 'strategy'],
  reclaim: ['use', 'strategy', 'policy'],
  boot: [],
  device: ['use', 'kind', 'name'],
}

export function entriesOf(config: StackConfig): Entry[] {
  const { stack, boot } = config
  const strategy = (kind: Role, path: ConfigPath, value: Record<string, unknown>): Entry => {
    const nameKey = kind === 'reclaim' && value['policy'] !== undefined ? 'policy' : 'strategy'
    return { kind, path, use: value['use'] as string, name: value[nameKey] as string | undefined, nameKey, raw: value }
  }
  const device = (path: ConfigPath, value: StackConfig['devices'][number]): Entry => ({
    ...{ kind: 'device', path, use: value.use, name: value.kind, nameKey: 'kind', raw: value },
  })
  const protocol = boot && Object.keys(boot).find((key) => key !== 'use')
  return [
    strategy('cpu', ['stack', 'cpu'], stack.cpu),
    strategy('paging', ['stack', 'paging'], stack.paging),
    strategy('abi', ['stack', 'abi'], stack.abi),
    ...stack.io.map((value, index) => strategy('io', ['stack', 'io', index], value)),
    ...stack.reclaim.map((value, index) => strategy('reclaim', ['stack', 'reclaim', index], value)),
    ...(stack.scheduler ? [strategy('scheduler', ['stack', 'scheduler'], stack.scheduler)] : []),
    ...(boot && protocol
      ? [
          {
            kind: 'boot' as const,
            path: ['boot', protocol],
            use: boot.use,
            name: protocol,
            nameKey: protocol,
            raw: boot[protocol] as Record<string, unknown>,
          },
        ]
      : []),
    ...config.devices.map((value, index) => device(['devices', index], value)),
    ...(config.host.devices.length > 0 ? (config.host.io ?? DEFAULT_HOST_IO) : []).map((value, index) => ({
      ...strategy('host', ['host', 'io', index], value),
      ofHost: true as const,
    })),
    ...config.host.devices.map(({ at: _, ...value }, index) => ({
      ...device(['host', 'devices', index], value),
      ofHost: true as const,
    })),
  ]
}

/** The kind and the first number that makes a name not in use. */
export function freeName(kind: string, used: ReadonlySet<unknown>): string {
  let number = 0
  while (used.has(`${kind}${number}`)) number++
  return `${kind}${number}`
}

/** The name in the configuration, or its kind and the first free number. */
export function deviceNames(entries: readonly Entry[]): Map<Entry, string> {
  const devices = entries.filter((entry) => entry.kind === 'device')
  const used = new Set(devices.map((entry) => entry.raw['name']))
  return new Map(
    devices.map((entry) => {
      const given = entry.raw['name']
      if (typeof given === 'string') return [entry, given]
      const name = freeName(entry.name!, used)
      used.add(name)
      return [entry, name]
    }),
  )
}

/** The packages that a configuration names, and the folder from which each is resolved. For lists: loads nothing. */
export const packagesOf = (
  loaded: LoadedConfig,
  source: ModuleSource,
): { readonly specifier: string; readonly folder: string }[] =>
  entriesOf(loaded.config).flatMap((entry) =>
    entry.use === undefined ? [] : [{ specifier: entry.use, folder: folderOf(loaded, entry.path, source) }],
  )
