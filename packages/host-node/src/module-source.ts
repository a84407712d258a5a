/** Configurations and plugins from the file system and node_modules. */

import { readFile } from 'node:fs/promises'
import { dirname, isAbsolute, resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import type { ModuleSource } from '@nonroot/contracts'
import { findFile, findPackage, installedPlugins } from './find-package.ts'
import { probeImport } from './probe.ts'

export interface NodeModuleSourceOptions {
  readonly workingFolder?: string
  /** Where packages are looked for last: the hypervisor's own installation. */
  readonly installation?: string
  /** Export conditions beside Node's own. Default: those that this process runs with. */
  readonly conditions?: readonly string[]
}

export function createNodeModuleSource(options: NodeModuleSourceOptions = {}): ModuleSource {
  const installation = options.installation ?? import.meta.dirname
  const extra = options.conditions ?? processConditions()
  const conditions = ['node', 'import', 'module-sync', 'default', ...extra]
  const from = (folder: string): string[] => [folder, installation]
  return {
    workingFolder: options.workingFolder ?? process.cwd(),
    readText: (path) => readFile(path, 'utf8'),
    resolvePath: (folder, path) => resolve(folder, path),
    folderOf: dirname,
    findPackage: async (specifier, folder) => findPackage(specifier, from(folder), conditions),
    findFile: async (specifier, folder) => findFile(specifier, from(folder), conditions),
    installedPlugins: async (folder) => installedPlugins(from(folder), conditions),
    importModule: (entry) =>
      import(/* @vite-ignore */ isAbsolute(entry) ? pathToFileURL(entry).href : entry) as Promise<
        Record<string, unknown>
      >,
    probe: (entry, limitMs) => probeImport(entry, limitMs, extra),
  }
}

/** `--conditions=x`, `-C x`, on the command line or in NODE_OPTIONS. */
function processConditions(): string[] {
  const words = [...process.execArgv, ...(process.env['NODE_OPTIONS'] ?? '').split(/\s+/)]
  return words.flatMap((word, index) => {
    if (word === '-C' || word === '--conditions') return [words[index + 1] ?? '']
    const match = /^(?:--conditions=|-C=)(.+)$/.exec(word)
    return match ? [match[1]!] : []
  })
}
