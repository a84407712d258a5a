/** Checks that the export of a plugin is a plugin. The export may be anything. */

import { API_VERSION, ROLES } from '@nonroot/contracts'
import type { FoundPackage, Plugin, PluginManifest } from '@nonroot/contracts'

type Shape = Readonly<Record<string, unknown>>

const isObject = (value: unknown): value is Shape =>
  value !== null && typeof value === 'object' && !Array.isArray(value)
const isText = (value: unknown): value is string => typeof value === 'string' && value !== ''
const isTextList = (value: unknown): boolean => value === undefined || (Array.isArray(value) && value.every(isText))
const shown = (value: unknown): string =>
  value === undefined
    ? 'missing'
    : typeof value === 'function'
      ? 'a function'
      : value !== null && typeof value === 'object'
        ? Array.isArray(value)
          ? 'a list'
          : 'an object'
        : JSON.stringify(value)

/** The first problem, as a sentence; undefined for a valid plugin. */
export function shapeProblem(exported: unknown, found: FoundPackage, manifest: PluginManifest): string | undefined {
  if (exported === undefined) return 'has no default export'
  if (isObject(exported) && typeof exported['then'] === 'function')
    return 'its default export is a promise, not a plugin'
  if (!isObject(exported)) return `its default export is ${shown(exported)}, not a plugin`
  const { name, apiVersion, strategies = [], devices = [], requires, provides } = exported
  if (!isText(name)) return `its name is ${shown(name)}`
  if (name !== found.name) return `it calls itself "${name}", but its package is "${found.name}"`
  if (apiVersion !== API_VERSION)
    return `its apiVersion is ${shown(apiVersion)}, but its package.json says ${manifest.apiVersion}`
  if (!isTextList(requires)) return `requires is ${shown(requires)}, not a list of names`
  if (!isTextList(provides)) return `provides is ${shown(provides)}, not a list of names`
  if (!Array.isArray(strategies)) return `strategies is ${shown(strategies)}, not a list`
  if (!Array.isArray(devices)) return `devices is ${shown(devices)}, not a list`

  const names: string[] = []
  for (const [index, strategy] of (strategies as unknown[]).entries()) {
    const problem = definitionProblem(strategy, `strategies[${index}]`, 'name')
    if (problem) return problem
    const { role, name: own, image } = strategy as Shape
    if (!(ROLES as readonly unknown[]).includes(role))
      return `strategies[${index}] has role ${shown(role)} (roles: ${ROLES.join(', ')})`
    if (role === 'boot' && typeof image !== 'function') return `strategies[${index}] is a boot protocol without image()`
    names.push(`${role as string}:${own as string}`)
  }
  for (const [index, device] of (devices as unknown[]).entries()) {
    const problem = definitionProblem(device, `devices[${index}]`, 'kind')
    if (problem) return problem
    names.push(`device:${(device as Shape)['kind'] as string}`)
  }
  const twice = names.find((item, index) => names.indexOf(item) !== index)
  if (twice) return `it defines ${twice} twice`
  const undeclared = names.find((item) => !manifest.provides.includes(item))
  if (undeclared) return `it exports ${undeclared}, which its package.json does not list in nonroot.provides`
  const absent = manifest.provides.find((item) => !names.includes(item))
  if (absent) return `its package.json promises ${absent}, which it does not export`
  if (names.length === 0) return 'it defines no strategy and no device'
  return undefined
}

function definitionProblem(definition: unknown, at: string, nameKey: 'name' | 'kind'): string | undefined {
  if (!isObject(definition)) return `${at} is ${shown(definition)}`
  const called = definition[nameKey]
  if (!isText(called)) return `${at}.${nameKey} is ${shown(called)}`
  if (typeof definition['create'] !== 'function')
    return `${at} (${called}): create is ${shown(definition['create'])}, not a function`
  const { options } = definition
  const standard = isObject(options) || typeof options === 'function' ? (options as Shape)['~standard'] : undefined
  if (!isObject(standard) || standard['version'] !== 1 || typeof standard['validate'] !== 'function') {
    return `${at} (${called}): options is ${shown(options)}, not a schema (zod, or any Standard Schema; noOptions for none)`
  }
  for (const list of ['needs', 'gives', 'conflicts', 'brings']) {
    if (!isTextList(definition[list]))
      return `${at} (${called}): ${list} is ${shown(definition[list])}, not a list of names`
  }
  return undefined
}

/** Call only if `shapeProblem` found none. */
export const asPlugin = (exported: unknown): Plugin => exported as Plugin
