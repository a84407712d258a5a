/** Reads, merges and validates a configuration file, the files that it extends and the changes of the command line. Loads no plugin. */

import { NonrootError } from '@nonroot/contracts'
import type { ModuleSource, SourceLocation } from '@nonroot/contracts'
import { CONFIG_VERSION, stackConfig, stackJsonSchema } from './config-schema.ts'
import type { StackConfig } from './config-schema.ts'
import { parseConfigText, parseValueText } from './config-text.ts'
import { child, fromValue, merge, pathText, toValue, withValue } from './config-tree.ts'
import type { ConfigNode } from './config-tree.ts'
import { issuesToErrors, throwAll } from './issues.ts'
import type { JsonSchema } from './issues.ts'
import { OVERRIDE } from './loaded-config.ts'
import type { LoadedConfig } from './loaded-config.ts'

/** A word alone, as `kvm-like`, is the name of a stack that the package `nonroot` has. */
async function shippedStack(name: string, source: ModuleSource): Promise<string | undefined> {
  if (!/^[a-z][a-z0-9-]*$/i.test(name)) return undefined
  const found = await source.findFile(`nonroot/stacks/${name}.yaml`, source.workingFolder)
  if (found !== undefined) return found
  throw new NonrootError({
    code: 'config.file',
    message: `there is no stack "${name}"`,
    thing: name,
    value: name,
    remedy: 'name a file that ends in .yaml, .yml, .json, .ts or .js, or a stack of the package nonroot, as kvm-like',
  })
}

/** Reads a stack file, or one of the package `nonroot` by its name: `kvm-like`. */
export async function loadConfig(
  file: string,
  source: ModuleSource,
  overrides: readonly string[] = [],
): Promise<LoadedConfig> {
  const path = (await shippedStack(file, source)) ?? source.resolvePath(source.workingFolder, file)
  return withOverrides({ file: path, tree: await readTree(path, source, []) }, overrides)
}

/** With further changes, in the syntax of `--set`. */
export function withOverrides(
  { file, tree: before }: Pick<LoadedConfig, 'file' | 'tree'>,
  overrides: readonly string[],
): LoadedConfig {
  let tree = before
  for (const override of overrides) tree = applyOverride(tree, override)
  return { file, config: validate(tree), tree }
}

async function readTree(file: string, source: ModuleSource, chain: readonly string[]): Promise<ConfigNode> {
  const tree = await readOne(file, source)
  const extended = child(tree, 'extends')
  if (!extended) return tree
  const specifier = toValue(extended)
  // The schema reports anything but text.
  if (typeof specifier !== 'string' || specifier === '') return tree
  const base = await findBase(specifier, file, source)
  const seen = [...chain, file]
  if (base === undefined || seen.includes(base)) {
    throw new NonrootError({
      code: 'config.extends',
      message: base
        ? `extends goes in a circle: ${[...seen, base].join(' -> ')}`
        : `extends: cannot find "${specifier}"`,
      thing: 'extends',
      value: specifier,
      remedy: base ? 'let one of them extend nothing' : 'a path from this file, or a file that a package exports',
      location: extended.at,
    })
  }
  try {
    return merge(await readTree(base, source, seen), tree)
  } catch (error) {
    // What has no line of its own has that of the line that extends.
    if (error instanceof NonrootError && error.errors.length === 0 && error.location?.line === undefined) {
      const named = error.message.includes(base) ? error.message : `${base}: ${error.message}`
      throw new NonrootError({
        code: 'config.extends',
        message: `extends: ${named}`,
        thing: 'extends',
        value: specifier,
        ...(error.remedy === undefined ? {} : { remedy: error.remedy }),
        location: extended.at,
        cause: error,
      })
    }
    throw error
  }
}

const findBase = (specifier: string, file: string, source: ModuleSource): Promise<string | undefined> | string =>
  /^(\.{0,2}\/|[A-Za-z]:[\\/])/.test(specifier) || !specifier.includes('/')
    ? source.resolvePath(source.folderOf(file), specifier)
    : source.findFile(specifier, source.folderOf(file))

async function readOne(file: string, source: ModuleSource): Promise<ConfigNode> {
  const extension = /\.([a-z]+)$/i.exec(file)?.[1]?.toLowerCase()
  if (extension && /^[cm]?[jt]s$/.test(extension)) return readModule(file, source)
  if (extension !== 'yaml' && extension !== 'yml' && extension !== 'json') {
    throw new NonrootError({
      code: 'config.syntax',
      message: `${file} is no stack file: its name must end in .yaml, .yml, .json, .ts, .mts, .js or .mjs`,
      thing: file,
    })
  }
  return mapOnly(parseConfigText(await readText(file, source), file, extension === 'json' ? 'json' : 'yaml'))
}

async function readText(file: string, source: ModuleSource): Promise<string> {
  try {
    return await source.readText(file)
  } catch (error) {
    throw new NonrootError({
      code: 'config.file',
      message: `cannot read ${file}: ${reason(error)}`,
      thing: file,
      value: file,
      remedy: 'give the path of a stack file, or the name of a shipped stack, as kvm-like',
      cause: error,
    })
  }
}

async function readModule(file: string, source: ModuleSource): Promise<ConfigNode> {
  await readText(file, source)
  let exported: Readonly<Record<string, unknown>>
  try {
    exported = await source.importModule(file)
  } catch (error) {
    throw new NonrootError({
      code: 'config.syntax',
      message: `${file} cannot be imported: ${(error as Error)?.message ?? String(error)}`,
      thing: file,
      location: { file },
      cause: error,
    })
  }
  const value = exported['default']
  if (value === null || typeof value !== 'object' || Array.isArray(value)) {
    throw new NonrootError({
      code: 'config.syntax',
      message: `${file} must export a stack as its default; it exports ${value === undefined ? 'none' : `a ${Array.isArray(value) ? 'list' : typeof value}`}`,
      thing: file,
      remedy: 'export default defineStack({ ... })',
      location: { file },
    })
  }
  return fromValue(value, { file })
}

function mapOnly(tree: ConfigNode): ConfigNode {
  if (tree.kind === 'map') return tree
  throw new NonrootError({
    code: 'config.syntax',
    message: `a stack file is a map of keys; this is ${tree.kind === 'list' ? 'a list' : JSON.stringify(tree.value)}`,
    remedy: `start with apiVersion: ${CONFIG_VERSION}`,
    location: tree.at,
  })
}

const reason = (error: unknown): string => {
  const code = (error as { code?: string })?.code
  const known: Record<string, string> = {
    ENOENT: 'there is no such file',
    EISDIR: 'it is a folder',
    EACCES: 'permission denied',
    ENOTDIR: 'a part of its path is no folder',
  }
  return (code && known[code]) ?? (error as Error)?.message ?? String(error)
}

/** `machine.memory=1GiB`, `devices[0].rate=5`. An empty value removes the key. */
function applyOverride(tree: ConfigNode, override: string): ConfigNode {
  const at: SourceLocation = { file: OVERRIDE + override }
  const fail = (message: string): NonrootError =>
    new NonrootError({
      code: 'config.override',
      message,
      thing: 'set',
      value: override,
      remedy: 'write --set KEY=VALUE, as in --set machine.memory=1GiB',
      location: at,
    })
  const equals = override.indexOf('=')
  if (equals <= 0) throw fail(equals < 0 ? 'there is no = in it' : 'there is no key before =')
  const key = override.slice(0, equals).trim()
  if (!/^[\w-]+(\.[\w-]+|\[\d+\])*$/.test(key)) throw fail(`"${key}" is no key`)
  const path = key
    .replaceAll(/\[(\d+)\]/g, '.$1')
    .split('.')
    .map((step) => (/^\d+$/.test(step) ? Number(step) : step))
  const result = withValue(tree, path, parseValueText(override.slice(equals + 1), at))
  if ('problem' in result) throw fail(result.problem)
  return result
}

let schemaCache: JsonSchema | undefined

export function validate(tree: ConfigNode): StackConfig {
  const value = toValue(tree)
  const parsed = stackConfig.safeParse(value)
  const errors = parsed.success
    ? []
    : issuesToErrors(parsed.error.issues, {
        code: 'config.schema',
        root: tree,
        prefix: [],
        schema: (schemaCache ??= stackJsonSchema()),
      })
  errors.push(...checkBoot(tree), ...checkNames(tree, 'devices', 'devices'), ...checkNames(tree, 'vms', 'VMs'))
  throwAll(errors, 'errors in the configuration')
  return parsed.data!
}

/** `boot` names one protocol beside `use`. */
function checkBoot(tree: ConfigNode): NonrootError[] {
  const boot = child(tree, 'boot')
  if (boot?.kind !== 'map') return []
  const protocols = [...boot.entries.keys()].filter((key) => key !== 'use')
  if (protocols.length === 1) {
    const options = child(boot, protocols[0]!)!
    return options.kind === 'map'
      ? []
      : [
          new NonrootError({
            code: 'config.schema',
            message: `boot.${protocols[0]}: ${JSON.stringify(toValue(options))} is not valid`,
            thing: `boot.${protocols[0]}`,
            value: toValue(options),
            remedy: "valid: a map of the protocol's options",
            location: options.at,
          }),
        ]
  }
  return [
    new NonrootError({
      code: 'config.schema',
      message: protocols.length
        ? `boot names ${protocols.length} protocols (${protocols.join(', ')})`
        : 'boot names no protocol',
      thing: 'boot',
      value: toValue(boot),
      remedy: 'name one, as in boot: { linux: { kernel: ./vmlinuz } }',
      location: boot.at,
    }),
  ]
}

/** Items of a list that have the name of one before them. */
function checkNames(tree: ConfigNode, key: string, what: string): NonrootError[] {
  const list = child(tree, key)
  if (list?.kind !== 'list') return []
  const seen = new Set<unknown>()
  return list.items.flatMap((item, index) => {
    const name = child(item, 'name')
    if (!name) return []
    const value = toValue(name)
    if (!seen.has(value)) return (seen.add(value), [])
    const thing = pathText([key, index, 'name'])
    return [
      new NonrootError({
        code: 'config.schema',
        message: `${thing}: two ${what} are called ${JSON.stringify(value)}`,
        thing,
        value,
        remedy: 'give each its own name',
        location: name.at,
      }),
    ]
  })
}
