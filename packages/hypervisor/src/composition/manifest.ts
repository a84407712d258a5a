/** The `"nonroot"` field of a package.json, read before any code of the package is imported. */

import { API_VERSION, NonrootError, ROLES } from '@nonroot/contracts'
import type { ErrorCode, FoundPackage, PluginManifest, SourceLocation } from '@nonroot/contracts'
import { suggest } from './spelling.ts'

/** Identifies a plugin in messages, and where it was requested. */
export interface PluginRequest {
  readonly specifier: string
  /** `stack.paging.use` */
  readonly thing: string
  readonly location: SourceLocation
}

export function pluginError(
  request: PluginRequest,
  code: ErrorCode,
  message: string,
  extra: { remedy?: string; value?: unknown; cause?: unknown } = {},
): NonrootError {
  const { specifier, thing, location } = request
  return new NonrootError({ code, message: `${thing}: ${message}`, thing, value: specifier, location, ...extra })
}

const FIELD = '"nonroot": { "apiVersion": 1, "provides": ["device:my-device"] }'

export function readManifest(found: FoundPackage, request: PluginRequest): PluginManifest {
  const fail = (message: string, remedy?: string): NonrootError =>
    pluginError(request, 'plugin.manifest', `${found.name}: ${message}`, remedy ? { remedy } : {})
  if (!found.manifest) throw fail(`its package.json cannot be read: ${found.problem}`)
  const field = found.manifest['nonroot']
  if (field === undefined)
    throw fail('is no plugin: its package.json has no "nonroot" field', `a plugin's has ${FIELD}`)
  if (field === null || typeof field !== 'object' || Array.isArray(field)) {
    throw fail(`the "nonroot" field of its package.json is ${JSON.stringify(field)}`, `it should be ${FIELD}`)
  }
  const { apiVersion, provides } = field as Record<string, unknown>
  if (typeof apiVersion !== 'number') {
    throw fail(
      `nonroot.apiVersion in its package.json is ${JSON.stringify(apiVersion) ?? 'missing'}`,
      `it should be ${API_VERSION}`,
    )
  }
  if (apiVersion !== API_VERSION) {
    throw pluginError(
      request,
      'plugin.apiVersion',
      `${found.name}@${found.version} is made for version ${apiVersion} of the plugin interface; this is version ${API_VERSION}`,
      {
        remedy:
          apiVersion > API_VERSION
            ? 'upgrade nonroot, or take an older version of the plugin'
            : 'take a newer version of the plugin',
      },
    )
  }
  if (!Array.isArray(provides) || !provides.every((item) => typeof item === 'string')) {
    throw fail(
      `nonroot.provides in its package.json is ${JSON.stringify(provides) ?? 'missing'}`,
      `it should be a list, as in ${FIELD}`,
    )
  }
  const kinds = [...ROLES, 'device']
  for (const item of provides as string[]) {
    const [kind = '', name = ''] = item.split(':')
    if (!kinds.includes(kind) || !name) {
      throw fail(`nonroot.provides in its package.json names "${item}"`, `each is ROLE:NAME. ${suggest(kind, kinds)}`)
    }
  }
  const { defaults = [] } = field as Record<string, unknown>
  if (!Array.isArray(defaults) || !defaults.every((item) => provides.includes(item))) {
    throw fail(
      `nonroot.defaults in its package.json is ${JSON.stringify(defaults)}`,
      `it should be a list of what the package provides: ${provides.join(', ')}`,
    )
  }
  return { apiVersion, provides: provides as string[], defaults: defaults as string[] }
}

/** The strategy that is meant where none is named. Undefined: one has to be named. */
export function defaultOf({ provides, defaults = [] }: PluginManifest, kind: string): string | undefined {
  const names = namesIn(provides, kind)
  return names.length === 1 ? names[0] : namesIn(defaults, kind)[0]
}

/** Names that a manifest provides for one role. */
export const providedBy = (manifest: PluginManifest, kind: string): string[] => namesIn(manifest.provides, kind)

const namesIn = (list: readonly string[], kind: string): string[] =>
  list.filter((item) => item.startsWith(`${kind}:`)).map((item) => item.slice(kind.length + 1))
