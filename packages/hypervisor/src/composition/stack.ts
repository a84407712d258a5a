/** A stack: a configuration whose parts have been found and checked, with their options parsed. Nothing is created yet. */

import type {
  AnyStrategyDefinition,
  BootDefinition,
  BootImage,
  Capability,
  DeviceDefinition,
  FoundPackage,
  ModuleSource,
  Role,
  SourceLocation,
} from '@nonroot/contracts'
import { NonrootError } from '@nonroot/contracts'
import { incompatibilities, sortByRequires } from './compatibility.ts'
import type { Part } from './compatibility.ts'
import { loadConfig } from './config-load.ts'
import type { StackConfig } from './config-schema.ts'
import { keyLocation, nodeAt, pathText } from './config-tree.ts'
import type { ConfigPath } from './config-tree.ts'
import { throwAll } from './issues.ts'
import { folderOf } from './loaded-config.ts'
import type { LoadedConfig } from './loaded-config.ts'
import { defaultOf, pluginError, providedBy } from './manifest.ts'
import type { PluginRequest } from './manifest.ts'
import { DEFAULT_LOAD_LIMIT_MS, messageOf, PluginLoader } from './plugin-load.ts'
import type { LoadedPlugin } from './plugin-load.ts'
import { parseOptions } from './plugin-options.ts'
import { deviceNames, entriesOf, freeName } from './stack-entries.ts'
import type { Entry } from './stack-entries.ts'
import { suggest } from './spelling.ts'

/** A package that a stack names. */
export type PackageInfo = Pick<FoundPackage, 'name' | 'version' | 'folder'>

interface LayerBase {
  /** Its path in the configuration: `stack.io[0]`. */
  readonly thing: string
  readonly location: SourceLocation
  readonly package: PackageInfo
  /** As parsed by the plugin's own schema. */
  readonly options: unknown
  /** Folder that the options' paths are relative to. */
  readonly folder: string
}

/** One strategy of the stack. */
export interface StrategyLayer<R extends Role = Role> extends LayerBase {
  readonly role: R
  readonly definition: Extract<AnyStrategyDefinition, { role: R }>
}

/** One device of the machine. */
export interface DeviceLayer extends LayerBase {
  readonly name: string
  readonly definition: DeviceDefinition
}

/** One device of the host. */
export interface HostDeviceLayer extends DeviceLayer {
  /** Its PCI address; undefined: any. */
  readonly at: string | undefined
}

export interface Stack {
  readonly file: string
  readonly config: StackConfig
  readonly cpu: StrategyLayer<'cpu'>
  readonly paging: StrategyLayer<'paging'>
  readonly abi: StrategyLayer<'abi'>
  readonly io: readonly StrategyLayer<'io'>[]
  readonly reclaim: readonly StrategyLayer<'reclaim'>[]
  readonly scheduler: StrategyLayer<'scheduler'> | undefined
  readonly boot: (StrategyLayer<'boot'> & { readonly image: BootImage<string> }) | undefined
  readonly devices: readonly DeviceLayer[]
  /** The host's own hardware: nothing in most stacks. */
  readonly host: { readonly io: readonly StrategyLayer<'host'>[]; readonly devices: readonly HostDeviceLayer[] }
  /** Every strategy above, in the order in which they are bound: those that others require first. */
  readonly layers: readonly StrategyLayer[]
}

export interface ResolveOptions {
  readonly source: ModuleSource
  /** How long one plugin may take to load. */
  readonly loadLimitMs?: number
}

export interface LoadStackOptions extends ResolveOptions {
  /** `KEY=VALUE`, as after `--set`. */
  readonly set?: readonly string[]
}

/** Reads, validates, resolves, loads and checks a stack. Reports as many errors as possible at once. */
export async function loadStack(file: string, options: LoadStackOptions): Promise<Stack> {
  return resolveStack(await loadConfig(file, options.source, options.set), options)
}

interface Located extends LoadedConfig {
  folderOf(path: ConfigPath): string
}

interface Resolved {
  readonly entry: Entry
  readonly loaded: LoadedPlugin
  readonly layer: StrategyLayer | DeviceLayer
}

/** What a configuration names, found, loaded and checked. */
export async function resolveStack(given: LoadedConfig, options: ResolveOptions): Promise<Stack> {
  const loaded: Located = { ...given, folderOf: (path) => folderOf(given, path, options.source) }
  const { config } = loaded
  const limitMs = options.loadLimitMs ?? DEFAULT_LOAD_LIMIT_MS
  const loader = new PluginLoader(options.source, limitMs)
  // A set, because a package that cannot be loaded fails every layer that names it, with the same error.
  const errors = new Set<NonrootError>()
  const resolved: Resolved[] = []
  const entries = entriesOf(config)
  const names = deviceNames(entries)

  // Entries that name a package come first: the others (devices) are found in packages that are then loaded.
  for (const entry of entries.toSorted(
    (left, right) => Number(left.use === undefined) - Number(right.use === undefined),
  )) {
    try {
      const plugin = await loadEntry(entry, loaded, loader, resolved)
      const definition = select(entry, plugin)
      const parsed = await parseOptions(entry, definition.options, plugin, loaded, limitMs)
      const base: LayerBase = {
        thing: pathText(entry.path),
        location: nodeAt(loaded.tree, [...entry.path, entry.nameKey]).at,
        package: { name: plugin.found.name, version: plugin.found.version, folder: plugin.found.folder },
        options: parsed,
        folder: loaded.folderOf(entry.path),
      }
      const layer =
        entry.kind === 'device'
          ? { ...base, name: names.get(entry)!, definition: definition as DeviceDefinition }
          : ({ ...base, role: entry.kind, definition } as StrategyLayer)
      resolved.push({ entry, loaded: plugin, layer })
    } catch (error) {
      if (!(error instanceof NonrootError)) throw error
      for (const one of error.errors.length ? error.errors : [error]) errors.add(one)
    }
  }
  resolved.sort((left, right) => entries.indexOf(left.entry) - entries.indexOf(right.entry))
  resolved.push(...(await broughtDevices(resolved, loaded, limitMs)))
  const first = [...errors]
  // What a failed package would have provided is not reported as missing.
  const loads = first.filter((error) => error.code !== 'device.unknown')
  throwAll(loads.some((error) => error.code.startsWith('plugin.')) ? loads : first, 'errors in the stack')

  const plugins = new Map(
    resolved.map(({ loaded: { plugin }, layer }) => [plugin, { plugin, thing: layer.thing, location: layer.location }]),
  )
  const order = sortByRequires([...plugins.values()]).map((part) => part.plugin)
  const ofHost = resolved.filter((item) => item.entry.ofHost)
  const ofMachine = resolved.filter((item) => !item.entry.ofHost)
  throwAll(
    [ofMachine, ofHost].flatMap((items) => incompatibilities(items.map(toPart))),
    'parts of the stack do not fit together',
  )

  throwAll(impossibleInThreads(config, ofMachine), 'parts of the stack do not fit together')

  const strategies = ofMachine.filter((item) => item.entry.kind !== 'device')
  const layers = strategies
    .toSorted((left, right) => order.indexOf(left.loaded.plugin) - order.indexOf(right.loaded.plugin))
    .map((item) => item.layer as StrategyLayer)
  const all = <R extends Role>(role: R): StrategyLayer<R>[] =>
    strategies.filter((item) => item.entry.kind === role).map((item) => item.layer as unknown as StrategyLayer<R>)
  const [boot] = all('boot')
  return {
    file: loaded.file,
    config,
    cpu: all('cpu')[0]!,
    paging: all('paging')[0]!,
    abi: all('abi')[0]!,
    io: all('io'),
    reclaim: all('reclaim'),
    scheduler: all('scheduler')[0],
    boot: boot && { ...boot, image: imageOf(boot) },
    devices: ofMachine.filter((item) => item.entry.kind === 'device').map((item) => item.layer as DeviceLayer),
    host: {
      io: ofHost
        .filter((item) => item.entry.kind === 'host')
        .map((item) => item.layer as unknown as StrategyLayer<'host'>),
      devices: ofHost
        .filter((item) => item.entry.kind === 'device')
        .map((item, index) => ({ ...(item.layer as DeviceLayer), at: config.host.devices[index]!.at })),
    },
    layers,
  }
}

/** Devices that strategies bring, where the machine has none of the kind and exactly one package of the stack provides it. */
async function broughtDevices(resolved: readonly Resolved[], loaded: Located, limitMs: number): Promise<Resolved[]> {
  const brought: Resolved[] = []
  for (const { entry, layer } of resolved) {
    for (const kind of ('brings' in layer.definition && layer.definition.brings) || []) {
      if ([...resolved, ...brought].some((other) => other.entry.kind === 'device' && other.entry.name === kind))
        continue
      const providers = new Set(resolved.map((item) => item.loaded).filter((item) => provides(item, kind)))
      const [provider] = providers
      if (!provider || providers.size > 1) continue
      const device: Entry = { ...entry, kind: 'device', name: kind, raw: {} }
      const definition = select(device, provider) as DeviceDefinition
      const given = resolved.flatMap((item) => ('gives' in item.layer.definition && item.layer.definition.gives) || [])
      // A machine without its transport (a paravirtual one) goes without.
      if (!(definition.needs ?? []).every((need) => given.includes(need))) continue
      const options = await parseOptions(device, definition.options, provider, loaded, limitMs)
      const { name, version, folder } = provider.found
      const used = new Set(resolved.map((item) => 'name' in item.layer && item.layer.name))
      const from = { ...layer, thing: `${layer.thing}.${kind}`, package: { name, version, folder }, options }
      brought.push({ entry: device, loaded: provider, layer: { ...from, name: freeName(kind, used), definition } })
    }
  }
  return brought
}

const provides = ({ manifest }: LoadedPlugin, kind: string): boolean => providedBy(manifest, 'device').includes(kind)

async function loadEntry(
  entry: Entry,
  loaded: Located,
  loader: PluginLoader,
  resolved: readonly Resolved[],
): Promise<LoadedPlugin> {
  const at = (path: ConfigPath): PluginRequest => ({
    specifier: entry.use ?? String(entry.name),
    thing: pathText(path),
    location: nodeAt(loaded.tree, path).at,
  })
  const usePath = entry.kind === 'boot' ? ['boot', 'use'] : [...entry.path, 'use']
  const namePath = entry.kind === 'boot' ? entry.path : [...entry.path, entry.nameKey]
  const nameRequest =
    entry.kind === 'boot'
      ? { ...at(namePath), location: keyLocation(loaded.tree, namePath) }
      : at(entry.name === undefined ? entry.path : namePath)
  const need = { kind: entry.kind, name: entry.name, request: nameRequest }
  if (entry.use !== undefined) return loader.load(at(usePath), loaded.folderOf(usePath), need)

  // A device without `use` is found in a package that the stack already uses.
  const candidates = [...new Set(resolved.map((item) => item.loaded))]
  const providers = candidates.filter(({ manifest }) => providedBy(manifest, 'device').includes(entry.name!))
  if (providers.length === 1) return providers[0]!
  const kinds = candidates.flatMap(({ manifest }) => providedBy(manifest, 'device'))
  throw pluginError(
    nameRequest,
    'device.unknown',
    providers.length
      ? `${providers.map(({ found }) => found.name).join(' and ')} both provide a device "${entry.name}"`
      : `no package of this stack provides a device "${entry.name}"`,
    {
      value: entry.name,
      remedy: providers.length
        ? 'say which with use:'
        : ((await whoHas(entry.name!, loaded.folderOf(entry.path), loader)) ??
          `${suggest(entry.name!, kinds, 'kinds')}${kinds.length ? '; or name' : 'name'} its package with use:`),
    },
  )
}

async function whoHas(kind: string, folder: string, loader: PluginLoader): Promise<string | undefined> {
  const names = await loader.installedWith(`device:${kind}`, folder)
  return names.length === 0
    ? undefined
    : `${names.join(' and ')} ${names.length > 1 ? 'have' : 'has'} it: add use: "${names[0]}"`
}

type Definition = AnyStrategyDefinition | DeviceDefinition

/** The loader has checked that it exists. */
function select(entry: Entry, { plugin, manifest }: LoadedPlugin): Definition {
  if (entry.kind === 'device') return plugin.devices!.find((device) => device.kind === entry.name)!
  const ofRole = plugin.strategies!.filter((strategy) => strategy.role === entry.kind)
  const name = entry.name ?? defaultOf(manifest, entry.kind)
  return ofRole.find((strategy) => strategy.name === name)!
}

function imageOf(layer: StrategyLayer<'boot'>): BootImage<string> {
  const definition = layer.definition as BootDefinition
  try {
    return definition.image(layer.options as never)
  } catch (error) {
    throw new NonrootError({
      code: 'plugin.invalid',
      message: `${layer.thing}: ${layer.package.name}: image() throws: ${messageOf(error)}`,
      thing: layer.thing,
      location: layer.location,
      cause: error,
    })
  }
}

/** The host's devices are in one thread, and so are all VMs that may own them; a page changes its frame only on its VM's thread. */
function impossibleInThreads({ host, reclaim }: StackConfig, parts: readonly Resolved[]): NonrootError[] {
  const threads = parts.find(({ layer }) => layer.definition.gives?.includes('threadPerVm'))
  if (!threads) return []
  const { label, thing, location } = toPart(threads)
  const error = (why: string, key: string): NonrootError =>
    new NonrootError({
      code: 'stack.incompatible',
      message: `${thing}: ${label} gives each VM a thread of its own, and ${why}`,
      ...{ thing, location, value: label },
      remedy: `choose another scheduler (credit, round-robin), or leave ${key} out`,
    })
  return [
    ...(host.devices.length > 0
      ? [error('devices of the host can be reached from one thread only', 'host.devices')]
      : []),
    ...(reclaim?.group === undefined ? [] : [error('VMs can share pages within one thread only', 'reclaim.group')]),
  ]
}

function toPart({ entry, layer }: Resolved): Part {
  const { definition } = layer
  const name = 'kind' in definition ? definition.kind : definition.name
  return {
    thing: pathText(entry.path),
    label: `${layer.package.name} ${name}`,
    location: layer.location,
    needs: definition.needs ?? [],
    gives: definition.gives ?? [],
    conflicts: ('conflicts' in definition && (definition.conflicts as readonly Capability[] | undefined)) || [],
  }
}
