/** This process as a host: where packages and files come from. */

import { readdirSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import type { ModuleSource } from '@nonroot/contracts'
import { createNodeModuleSource } from '@nonroot/host-node'
import { shipped } from './shipped.ts'
import type { ShippedPlugin } from './shipped.ts'

/** How long a plugin may take to load; NONROOT_PLUGIN_TIMEOUT (seconds) changes it. */
export const loadLimitMs = (): number | undefined => {
  const seconds = Number(process.env['NONROOT_PLUGIN_TIMEOUT'])
  return seconds > 0 ? seconds * 1000 : undefined
}

const installation = fileURLToPath(new URL('.', import.meta.url))

/**
 * Packages are found and their manifests read as ever. If what was found is the very package that is in our own files, too, it is not loaded a
 * second time: same version, and what we ourselves would find. A copy elsewhere is another package.
 */
export function moduleSource(): ModuleSource {
  const source = createNodeModuleSource({ installation })
  const ours = new Map<string, ShippedPlugin>()
  return {
    ...source,
    async findPackage(specifier, folder) {
      const found = await source.findPackage(specifier, folder)
      const plugin = found?.entry && shipped.get(found.name)
      if (plugin && plugin.version === found.version) {
        const own = await source.findPackage(found.name, installation)
        if (own?.entry === found.entry) ours.set(found.entry!, plugin)
      }
      return found
    },
    async importModule(entry) {
      const own = ours.get(entry)
      return own ? { default: own.plugin } : source.importModule(entry)
    },
  }
}

/** Stacks that a name is enough for. */
export const shippedStackNames = (): string[] =>
  readdirSync(new URL('../stacks/', import.meta.url)).flatMap((file) => (file.endsWith('.yaml') ? [file.slice(0, -5)] : []))

/** The stack that is run when none is named. */
export const defaultStack = (): string => fileURLToPath(new URL('../stacks/kvm-like.yaml', import.meta.url))
