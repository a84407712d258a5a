/** Loads a plugin by its package's name: finds it, reads its manifest, probes it, imports it and checks it. */

import { NonrootError } from '@nonroot/contracts'
import type { FoundPackage, ModuleSource, Plugin, PluginManifest } from '@nonroot/contracts'
import { defaultOf, pluginError, providedBy, readManifest } from './manifest.ts'
import type { PluginRequest } from './manifest.ts'
import { asPlugin, shapeProblem } from './plugin-shape.ts'
import { suggest } from './spelling.ts'

/** Longer than any import takes on a slow disk, and short enough for users. */
export const DEFAULT_LOAD_LIMIT_MS = 10_000

export interface LoadedPlugin {
  readonly found: FoundPackage
  readonly manifest: PluginManifest
  readonly plugin: Plugin
}

/** What a caller needs from the plugin. Checked against the manifest, so that a wrong name is found without importing. */
export interface PluginNeed {
  readonly kind: string
  readonly name: string | undefined
  /** Position of the name. */
  readonly request: PluginRequest
}

export class PluginLoader {
  readonly #source: ModuleSource
  readonly #limitMs: number
  readonly #loaded = new Map<string, Promise<LoadedPlugin>>()

  constructor(source: ModuleSource, limitMs = DEFAULT_LOAD_LIMIT_MS) {
    this.#source = source
    this.#limitMs = limitMs
  }

  /** Names of installed packages that provide this, as `device:virtio-rng`. */
  async installedWith(provided: string, folder: string): Promise<string[]> {
    const found = await this.#source.installedPlugins(folder)
    return found
      .filter(({ manifest }) => (manifest?.['nonroot'] as Partial<PluginManifest> | undefined)?.provides?.includes(provided))
      .map(({ name }) => name)
  }

  /** Finds a package and reads its manifest. Imports nothing. */
  async find(request: PluginRequest, folder: string): Promise<{ found: FoundPackage; manifest: PluginManifest }> {
    const found = await this.#source.findPackage(request.specifier, folder)
    if (!found) throw await this.#notFound(request, folder)
    return { found, manifest: readManifest(found, request) }
  }

  async load(request: PluginRequest, folder: string, need?: PluginNeed): Promise<LoadedPlugin> {
    const { found, manifest } = await this.find(request, folder)
    if (need) checkNeed(found, manifest, need)
    // One import per package, however many layers use it.
    let loading = this.#loaded.get(found.folder)
    if (!loading) this.#loaded.set(found.folder, (loading = this.#import(found, manifest, request)))
    return loading
  }

  async #notFound(request: PluginRequest, folder: string): Promise<NonrootError> {
    const { specifier } = request
    if (/^\.{0,2}\//.test(specifier)) {
      return pluginError(request, 'plugin.notFound', `there is no package at ${specifier}`, {
        remedy: `paths are relative to ${folder}; the folder must hold a package.json`,
      })
    }
    const installed = (await this.#source.installedPlugins(folder)).map((found) => found.name)
    return pluginError(request, 'plugin.notFound', `the package "${specifier}" is not installed`, {
      remedy: `${suggest(specifier, installed, 'installed plugins')}. To install: npm install ${specifier}`.replace(
        /^\. /,
        '',
      ),
    })
  }

  async #import(found: FoundPackage, manifest: PluginManifest, request: PluginRequest): Promise<LoadedPlugin> {
    const named = `${found.name}@${found.version}`
    if (!found.entry) throw pluginError(request, 'plugin.load', `${named} cannot be imported: ${found.problem}`)
    const threw = (message: string, cause?: unknown): NonrootError =>
      pluginError(request, 'plugin.load', `${named} failed while loading: ${message}`, {
        remedy: 'report it to the authors of the plugin',
        cause,
      })

    // A running import cannot be stopped: third-party code is first imported in a thread that can be terminated.
    if (!found.name.startsWith('@nonroot/')) {
      const probe = await this.#source.probe(found.entry, this.#limitMs)
      if (probe.outcome === 'threw') throw threw(probe.message)
      if (probe.outcome === 'exited') throw threw(`it ended the process with status ${probe.status}`)
      if (probe.outcome === 'timedOut') throw this.#tooSlow(named, request)
    }
    let exported: unknown
    try {
      const imported = await withLimit(this.#source.importModule(found.entry), this.#limitMs)
      if (imported === TIMED_OUT) throw this.#tooSlow(named, request)
      exported = imported['default']
    } catch (error) {
      throw error instanceof NonrootError ? error : threw(messageOf(error), error)
    }
    let problem: string | undefined
    try {
      problem = shapeProblem(exported, found, manifest)
    } catch (error) {
      problem = `looking at its default export throws: ${messageOf(error)}`
    }
    if (problem) {
      throw pluginError(request, 'plugin.invalid', `${named}: ${problem}`, {
        remedy: 'export default definePlugin({ ... })',
      })
    }
    return { found, manifest, plugin: asPlugin(exported) }
  }

  #tooSlow(named: string, request: PluginRequest): NonrootError {
    return pluginError(request, 'plugin.timeout', `${named} was not loaded after ${this.#limitMs / 1000} s`, {
      remedy: 'a plugin must do its work in create(), not while it is imported',
    })
  }
}

function checkNeed(found: FoundPackage, manifest: PluginManifest, need: PluginNeed): void {
  const names = providedBy(manifest, need.kind)
  const what = need.kind === 'device' ? 'device' : `${need.kind} strategy`
  if (names.length === 0) {
    throw pluginError(need.request, 'plugin.invalid', `${found.name}@${found.version} provides no ${what}`, {
      remedy: `it provides ${manifest.provides.join(', ') || 'nothing'}`,
    })
  }
  if (need.name === undefined ? defaultOf(manifest, need.kind) === undefined : !names.includes(need.name)) {
    throw pluginError(
      need.request,
      'plugin.invalid',
      need.name === undefined
        ? `${found.name} has ${names.length} ${need.kind} strategies: say which`
        : `${found.name}@${found.version} has no ${what} "${need.name}"`,
      { value: need.name, remedy: suggest(need.name ?? '', names) },
    )
  }
}

export const TIMED_OUT = Symbol('timed out')

export async function withLimit<T>(work: Promise<T>, limitMs: number): Promise<T | typeof TIMED_OUT> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const limit = new Promise<typeof TIMED_OUT>((resolve) => {
    timer = setTimeout(resolve, limitMs, TIMED_OUT)
  })
  try {
    return await Promise.race([work, limit])
  } finally {
    clearTimeout(timer)
  }
}

export function messageOf(error: unknown): string {
  try {
    const text = error instanceof Error ? error.message : typeof error === 'string' ? error : JSON.stringify(error)
    return (text || 'it threw without saying why').split('\n')[0]!
  } catch {
    return 'it threw without saying why'
  }
}
