/** Finding npm packages on disk the way Node does, without importing them. */

import { existsSync, readdirSync, readFileSync, realpathSync, statSync } from 'node:fs'
import { dirname, isAbsolute, join, resolve } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { FoundPackage } from '@nonroot/contracts'
import { moduleResolve } from 'import-meta-resolve'

/** `@scope/name` of `@scope/name/sub/path`; undefined for what is no package (`node:fs`, `https://...`). */
export function packageName(specifier: string): string | undefined {
  return /^(?:@[\w.~-]+\/)?[\w~-][\w.~-]*(?=\/|$)/.exec(specifier)?.[0]
}

export const isPath = (specifier: string): boolean => /^\.{1,2}(\/|$)/.test(specifier) || isAbsolute(specifier)

/** `folder` and all above it. */
function* upward(folder: string): Generator<string> {
  for (let at = resolve(folder); ; at = dirname(at)) {
    yield at
    if (dirname(at) === at) return
  }
}

/** The folder of the package as seen from `folder`: itself by its own name, or in a node_modules above. */
function locate(specifier: string, folder: string): string | undefined {
  if (isPath(specifier)) {
    const path = resolve(folder, specifier)
    if (!existsSync(path)) return undefined
    const start = statSync(path).isDirectory() ? path : dirname(path)
    return statSync(path).isDirectory()
      ? existsSync(join(start, 'package.json'))
        ? realpathSync(start)
        : undefined
      : [...upward(start)].find((above) => existsSync(join(above, 'package.json')))
  }
  const name = packageName(specifier)
  if (!name) return undefined
  for (const above of upward(folder)) {
    const manifest = join(above, 'package.json')
    if (existsSync(manifest) && read(manifest).manifest?.['name'] === name) return realpathSync(above)
    const installed = join(above, 'node_modules', name)
    if (existsSync(join(installed, 'package.json'))) return realpathSync(installed)
  }
  return undefined
}

function read(file: string): { manifest?: Record<string, unknown>; problem?: string } {
  try {
    const manifest: unknown = JSON.parse(readFileSync(file, 'utf8'))
    if (manifest !== null && typeof manifest === 'object' && !Array.isArray(manifest)) {
      return { manifest: manifest as Record<string, unknown> }
    }
    return { problem: 'it is no JSON object' }
  } catch (error) {
    return { problem: (error as Error).message.split('\n')[0]! }
  }
}

export function findPackage(
  specifier: string,
  folders: readonly string[],
  conditions: readonly string[],
): FoundPackage | undefined {
  for (const from of folders) {
    const folder = locate(specifier, from)
    if (folder) return describe(specifier, folder, from, conditions)
  }
  return undefined
}

function describe(specifier: string, folder: string, from: string, conditions: readonly string[]): FoundPackage {
  const manifestFile = join(folder, 'package.json')
  const { manifest, problem } = read(manifestFile)
  const text = (key: string, otherwise: string): string =>
    typeof manifest?.[key] === 'string' ? manifest[key] : otherwise
  const entry = manifest ? resolveEntry(specifier, folder, from, manifest, conditions) : { problem: problem! }
  return {
    name: text('name', specifier),
    version: text('version', '0.0.0'),
    folder,
    manifestFile,
    manifest,
    entry: 'url' in entry ? entry.url : undefined,
    ...('problem' in entry ? { problem: entry.problem } : {}),
  }
}

function resolveEntry(
  specifier: string,
  folder: string,
  from: string,
  manifest: Readonly<Record<string, unknown>>,
  conditions: readonly string[],
): { url: string } | { problem: string } {
  const path = isPath(specifier) ? resolve(from, specifier) : undefined
  if (path && statSync(path).isFile()) return { url: pathToFileURL(path).href }
  try {
    // By its own name from inside: right for a path and for a link, and the same as from outside.
    const inside = pathToFileURL(join(folder, 'package.json'))
    const own = path ? manifest['name'] : specifier
    if (typeof own === 'string' && manifest['exports'] !== undefined) {
      return { url: existing(moduleResolve(own, inside, new Set(conditions))) }
    }
    const main = typeof manifest['main'] === 'string' ? manifest['main'] : 'index.js'
    return { url: existing(pathToFileURL(join(folder, main))) }
  } catch (error) {
    return { problem: (error as Error).message.split('\n')[0]!.replace(/ imported from .*$/, '') }
  }
}

function existing(url: URL): string {
  if (!existsSync(url)) throw new Error(`its entry ${fileURLToPath(url)} does not exist (is it built?)`)
  return url.href
}

/** A file of a package by its exports, or undefined. */
export function findFile(
  specifier: string,
  folders: readonly string[],
  conditions: readonly string[],
): string | undefined {
  for (const folder of folders) {
    try {
      return fileURLToPath(moduleResolve(specifier, pathToFileURL(join(folder, 'x')), new Set(conditions)))
    } catch {
      // Not from there.
    }
  }
  return undefined
}

/** Packages with a `"nonroot"` field in any node_modules above the folders. The nearest of a name wins. */
export function installedPlugins(folders: readonly string[], conditions: readonly string[]): FoundPackage[] {
  const found = new Map<string, FoundPackage>()
  for (const above of new Set(folders.flatMap((folder) => [...upward(folder)]))) {
    const root = join(above, 'node_modules')
    if (!existsSync(root)) continue
    const names = readdirSync(root).flatMap((name) =>
      name.startsWith('@') ? readdirSync(join(root, name)).map((inner) => `${name}/${inner}`) : [name],
    )
    for (const name of names) {
      const { manifest } = read(join(root, name, 'package.json'))
      if (manifest?.['nonroot'] === undefined || found.has(name)) continue
      found.set(name, describe(name, realpathSync(join(root, name)), above, conditions))
    }
  }
  return [...found.values()].toSorted((left, right) => left.name.localeCompare(right.name))
}
