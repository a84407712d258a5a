/** Dependencies of modules, in loading order, and the files that modprobe reads. Works on names; independent of where the files are. */
import { byCodeUnits } from './bytes.ts'
import { type ModuleInfo, moduleName } from './module-info.ts'

export interface KernelModule extends ModuleInfo {
  /** Under lib/modules/VERSION, e.g. "kernel/drivers/virtio/virtio.ko". */
  readonly path: string
}

/** Lines of "kernel/a/b.ko", as modules.builtin has them. */
export const parseModulesBuiltin = (text: string): Set<string> =>
  new Set(
    text
      .split('\n')
      .filter((line) => line.trim() !== '')
      .map(moduleName),
  )

/** Lines of "PATH: PATH PATH ...", as depmod writes modules.dep; the nearest dependency first. */
export function parseModulesDep(text: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const colon = line.indexOf(':')
    if (colon > 0)
      found.set(
        moduleName(line.slice(0, colon)),
        line
          .slice(colon + 1)
          .split(' ')
          .filter(Boolean)
          .map(moduleName),
      )
  }
  return found
}

/** Lines of "softdep NAME pre: A B post: C", as depmod writes modules.softdep; what comes before is kept. */
export function parseModulesSoftdep(text: string): Map<string, string[]> {
  const found = new Map<string, string[]>()
  for (const line of text.split('\n')) {
    const match = /^softdep\s+(\S+)\s+(?:.*\b)?pre:([^:]*?)(?:\s+post:.*)?$/.exec(line)
    if (match) found.set(moduleName(match[1]!), match[2]!.split(/\s+/).filter(Boolean).map(moduleName))
  }
  return found
}

/**
 * The modules asked for and all they need, dependencies before dependents; what is built in or does not exist is left out and, if it
 * was asked for by name, reported in `missing`. A cycle of soft dependencies ends at the module it came from.
 */
export function resolveModules(
  wanted: readonly string[],
  available: ReadonlyMap<string, ModuleInfo>,
  builtin: ReadonlySet<string>,
): { order: string[]; missing: string[] } {
  const order = new Set<string>()
  const visiting = new Set<string>()
  const missing: string[] = []
  const visit = (name: string): void => {
    const info = available.get(name)
    if (!info || order.has(name) || visiting.has(name)) return
    visiting.add(name)
    for (const needed of [...info.softBefore, ...info.depends]) visit(needed)
    order.add(name)
  }
  for (const name of wanted.map(moduleName)) {
    if (!available.has(name) && !builtin.has(name)) missing.push(name)
    visit(name)
  }
  return { order: [...order], missing }
}

/** modules.dep: every module with all its dependencies, the last to be loaded first. (modules.dep(5)) */
export function formatModulesDep(modules: readonly KernelModule[]): string {
  const byName = new Map(modules.map((module) => [module.name, module]))
  return [...modules]
    .sort((a, b) => byCodeUnits(a.path, b.path))
    .map((module) => {
      const needed = resolveModules([module.name], byName, new Set()).order.slice(0, -1).reverse()
      return `${module.path}:${needed.map((name) => ` ${byName.get(name)!.path}`).join('')}\n`
    })
    .join('')
}

/** modules.alias: which module drives which device. (modules.dep(5), depmod(8)) */
export const formatModulesAlias = (modules: readonly KernelModule[]): string =>
  modules
    .flatMap(({ name, aliases }) => aliases.map((alias) => `alias ${alias} ${name}\n`))
    .sort(byCodeUnits)
    .join('')
