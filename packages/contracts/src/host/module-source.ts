/** Where configurations and plugins come from. Implemented per host (`host-node`), so that the kernel imports no `node:*`. */

import { token } from '../base/token.ts'

/** An npm package as found on disk; nothing of it has been imported. */
export interface FoundPackage {
  /** As its package.json says, or `specifier` if it says nothing. */
  readonly name: string
  readonly version: string
  readonly folder: string
  readonly manifestFile: string
  /** Parsed package.json; undefined with `problem` where it cannot be read or parsed. */
  readonly manifest: Readonly<Record<string, unknown>> | undefined
  readonly problem?: string
  /** What `importModule` takes: the resolved entry, a URL or path; undefined with `problem` where the exports lead nowhere. */
  readonly entry: string | undefined
}

/** How an attempt to import a module ended, tried out where it can do no harm. */
export type ProbeResult =
  | { readonly outcome: 'loaded' }
  | { readonly outcome: 'threw'; readonly message: string }
  | { readonly outcome: 'exited'; readonly status: number }
  | { readonly outcome: 'timedOut' }

/** Paths are the host's. `folder` is where a configuration file lies. Rejections are the host's own errors (ENOENT, ...). */
export interface ModuleSource {
  readonly workingFolder: string
  readText(path: string): Promise<string>
  /** `path` against `folder`; absolute paths stay. */
  resolvePath(folder: string, path: string): string
  folderOf(path: string): string
  /** A package (`@nonroot/mmu`) or a path (`./my-device`) as seen from `folder`; then from the hypervisor's own installation. */
  findPackage(specifier: string, folder: string): Promise<FoundPackage | undefined>
  /** A file inside a package (`nonroot/stacks/kvm-like.yaml`) by its exports, as seen from `folder`. */
  findFile(specifier: string, folder: string): Promise<string | undefined>
  /** Packages with a `"nonroot"` field that can be named from `folder`. */
  installedPlugins(folder: string): Promise<FoundPackage[]>
  /** A module's namespace. Rejects with whatever it threw. */
  importModule(entry: string): Promise<Readonly<Record<string, unknown>>>
  /** Import in a thread of its own, ended when `limitMs` has passed: whether importing it here would throw, hang or exit. */
  probe(entry: string, limitMs: number): Promise<ProbeResult>
}
export const ModuleSource = token<ModuleSource>('ModuleSource')
