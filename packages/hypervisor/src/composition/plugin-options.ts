/** Validates the options of one entry by the schema of its plugin, which may be wrong itself. */

import type { NonrootError, Schema } from '@nonroot/contracts'
import { nodeAt, pathText } from './config-tree.ts'
import { issuesToErrors, jsonSchemaOf, throwAll } from './issues.ts'
import type { LoadedConfig } from './loaded-config.ts'
import { pluginError } from './manifest.ts'
import type { PluginRequest } from './manifest.ts'
import { messageOf, TIMED_OUT, withLimit } from './plugin-load.ts'
import type { LoadedPlugin } from './plugin-load.ts'
import { RESERVED } from './stack-entries.ts'
import type { Entry } from './stack-entries.ts'

/** The options as the plugin's schema gives them. Throws `plugin.options` with all that is wrong with them, by place. */
export async function parseOptions(
  entry: Entry,
  schema: Schema,
  { found }: LoadedPlugin,
  { tree }: LoadedConfig,
  limitMs: number,
): Promise<unknown> {
  const raw = Object.fromEntries(Object.entries(entry.raw).filter(([key]) => !RESERVED[entry.kind].includes(key)))
  const request: PluginRequest = {
    specifier: found.name,
    thing: pathText(entry.path),
    location: nodeAt(tree, entry.path).at,
  }
  const bad = (message: string, cause?: unknown): NonrootError =>
    pluginError(request, 'plugin.options', `${found.name}@${found.version}: ${message}`, { cause })
  let result: unknown
  try {
    result = await withLimit(Promise.resolve(schema['~standard'].validate(raw)), limitMs)
  } catch (error) {
    throw bad(`its schema of options throws: ${messageOf(error)}`, error)
  }
  if (result === TIMED_OUT) throw bad(`its schema of options gave no answer after ${limitMs / 1000} s`)
  const checked = result as Awaited<ReturnType<Schema['~standard']['validate']>> | undefined
  if (checked === null || typeof checked !== 'object')
    throw bad('its schema of options answers with neither value nor issues')
  if (checked.issues === undefined) return checked.value
  if (!Array.isArray(checked.issues)) throw bad('its schema of options answers with neither value nor issues')
  const label = `${found.name}${entry.name === undefined ? '' : ` ${entry.name}`}`
  throwAll(
    issuesToErrors(checked.issues, {
      code: 'plugin.options',
      root: tree,
      prefix: entry.path,
      schema: jsonSchemaOf(schema),
      owner: label,
      alsoValid: RESERVED[entry.kind],
    }),
    `errors in the options of ${label}`,
  )
  throw bad('its schema of options refuses them without saying why')
}
