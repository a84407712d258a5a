/** Where configurations and plugins come from. Implemented per host (`host-node`), so that the kernel imports no `node:*`. */

import { token } from '../base/token.ts'

/** An npm package found on disk; none of its code has been imported. */
export interface FoundPackage {
  /** The name in its package.json, or else `specifier`. */
  readonly name: string
  readonly version: string
  readonly folder: string
  readonly manifestFile: string
  /** The parsed package.json; undefined, with `problem` set, if it cannot be read or parsed. */
  readonly manifest: Readonly<Record<string, unknown>> | undefined
  readonly problem?: string
  /** The resolved entry for `importModule`, a URL or path; undefined, with `problem` set, if the exports cannot be resolved. */
  readonly entry: string | undefined
}

/** The result of a trial import in isolation. */
export type ProbeResult =
  | { readonly outcome: 'loaded' }
  | { readonly outcome: 'threw'; readonly message: string }
  | { readonly outcome: 'exited'; readonly status: number }
  | { readonly outcome: 'timedOut' }

/** Paths are the host's. `folder` contains the configuration file. Rejections are the host's own errors (ENOENT, ...). */
export interface ModuleSource {
  readonly workingFolder: string
  readText(path: string): Promise<string>
  /** Resolves `path` against `folder`; absolute paths are unchanged. */
  resolvePath(folder: string, path: string): string
  folderOf(path: string): string
  /** A package (`@nonroot/mmu`) or a path (`./my-device`) as seen from `folder`; then from the hypervisor's own installation. */
  findPackage(specifier: string, folder: string): Promise<FoundPackage | undefined>
  /** A file inside a package (`nonroot/stacks/kvm-like.yaml`) by its exports, as seen from `folder`. */
  findFile(specifier: string, folder: string): Promise<string | undefined>
  /** Packages with a `"nonroot"` field that can be resolved from `folder`. */
  installedPlugins(folder: string): Promise<FoundPackage[]>
  /** A module's namespace. Rejects with whatever it threw. */
  importModule(entry: string): Promise<Readonly<Record<string, unknown>>>
  /** Imports in a separate thread, which is terminated after `limitMs`: whether an import here would throw, hang or exit. */
  probe(entry: string, limitMs: number): Promise<ProbeResult>
}
export const ModuleSource = token<ModuleSource>('ModuleSource')
