/** A configuration as a tree that keeps the position of each key and value. Independent of schemas. */

import type { SourceLocation } from '@nonroot/contracts'

export type ConfigPath = readonly (string | number)[]

export interface ConfigScalar {
  readonly kind: 'scalar'
  readonly value: unknown
  readonly at: SourceLocation
}
export interface ConfigMap {
  readonly kind: 'map'
  readonly entries: ReadonlyMap<string, { readonly key: SourceLocation; readonly node: ConfigNode }>
  readonly at: SourceLocation
}
export interface ConfigList {
  readonly kind: 'list'
  readonly items: readonly ConfigNode[]
  readonly at: SourceLocation
}
export type ConfigNode = ConfigScalar | ConfigMap | ConfigList

export function toValue(node: ConfigNode): unknown {
  switch (node.kind) {
    case 'scalar':
      return node.value
    case 'list':
      return node.items.map(toValue)
    case 'map':
      return Object.fromEntries([...node.entries].map(([key, entry]) => [key, toValue(entry.node)]))
  }
}

/** A tree of a plain value, with one position for all of it: for modules and overrides. */
export function fromValue(value: unknown, at: SourceLocation): ConfigNode {
  if (Array.isArray(value)) return { kind: 'list', items: value.map((item) => fromValue(item, at)), at }
  if (value !== null && typeof value === 'object') {
    const entries = Object.entries(value).filter(([, item]) => item !== undefined)
    return {
      kind: 'map',
      entries: new Map(entries.map(([key, item]) => [key, { key: at, node: fromValue(item, at) }])),
      at,
    }
  }
  return { kind: 'scalar', value, at }
}

/** The node at `path`, or the nearest enclosing one. */
export function nodeAt(root: ConfigNode, path: ConfigPath): ConfigNode {
  let node = root
  for (const step of path) {
    const next = child(node, step)
    if (!next) return node
    node = next
  }
  return node
}

export function child(node: ConfigNode, step: string | number): ConfigNode | undefined {
  if (node.kind === 'map') return node.entries.get(String(step))?.node
  if (node.kind === 'list') return node.items[Number(step)]
  return undefined
}

/** Where the key (not the value) of `path`'s last step was written. */
export function keyLocation(root: ConfigNode, path: ConfigPath): SourceLocation {
  const parent = nodeAt(root, path.slice(0, -1))
  const last = path.at(-1)
  return (parent.kind === 'map' && parent.entries.get(String(last))?.key) || nodeAt(root, path).at
}

/** `stack.io[1].transport` */
export const pathText = (path: ConfigPath): string =>
  path.map((step, index) => (typeof step === 'number' ? `[${step}]` : index ? `.${step}` : step)).join('') || 'the file'

/**
 * Merges `over` into `base`. Maps merge key by key, lists and scalars replace, null removes a key. Where `use` differs, the whole entry is replaced,
 * because options belong to one package.
 */
export function merge(base: ConfigNode, over: ConfigNode): ConfigNode {
  if (base.kind !== 'map' || over.kind !== 'map') return over
  const [was, is] = [base.entries.get('use')?.node, over.entries.get('use')?.node]
  if (was && is && toValue(was) !== toValue(is)) return withoutNulls(over)
  const entries = new Map(base.entries)
  for (const [key, entry] of over.entries) {
    const old = entries.get(key)
    if (isNull(entry.node)) entries.delete(key)
    else
      entries.set(
        key,
        old ? { key: entry.key, node: merge(old.node, entry.node) } : { ...entry, node: withoutNulls(entry.node) },
      )
  }
  return { kind: 'map', entries, at: over.at }
}

const isNull = (node: ConfigNode): boolean => node.kind === 'scalar' && node.value === null

function withoutNulls(node: ConfigNode): ConfigNode {
  if (node.kind !== 'map') return node
  const entries = [...node.entries].filter(([, entry]) => !isNull(entry.node))
  return {
    ...node,
    entries: new Map(entries.map(([key, entry]) => [key, { ...entry, node: withoutNulls(entry.node) }])),
  }
}

/** `root` with the value at `path` replaced or added (null: removed). A sentence if the path does not exist. */
export function withValue(
  root: ConfigNode,
  path: ConfigPath,
  value: ConfigNode,
): ConfigNode | { readonly problem: string } {
  const place = (node: ConfigNode | undefined, depth: number): ConfigNode | { readonly problem: string } => {
    if (depth === path.length) return node && value.kind === 'map' ? merge(node, value) : value
    const step = path[depth]!
    const here = pathText(path.slice(0, depth))
    if (!node) {
      if (typeof step === 'number' && step > 0) return { problem: `${here} has no items, so there is no [${step}]` }
      const inner = place(undefined, depth + 1)
      if ('problem' in inner) return inner
      return typeof step === 'number'
        ? { kind: 'list', items: isNull(inner) ? [] : [inner], at: value.at }
        : { kind: 'map', entries: new Map([[step, { key: value.at, node: inner }]]), at: value.at }
    }
    if (node.kind === 'scalar') {
      if (node.value === null) return place(undefined, depth)
      return { problem: `${here} is ${JSON.stringify(node.value)}, which has no parts` }
    }
    if (node.kind === 'list') {
      const index = Number(step)
      if (!Number.isInteger(index) || index < 0)
        return { problem: `${here} is a list: name an item by number, as in ${here}[0]` }
      if (index > node.items.length)
        return { problem: `${here} has ${node.items.length} items, so there is no [${index}]` }
      const inner = place(node.items[index], depth + 1)
      if ('problem' in inner) return inner
      return { ...node, items: node.items.toSpliced(index, 1, ...(isNull(inner) ? [] : [inner])) }
    }
    const key = String(step)
    const old = node.entries.get(key)
    const inner = place(old?.node, depth + 1)
    if ('problem' in inner) return inner
    const entries = new Map(node.entries)
    if (isNull(inner)) entries.delete(key)
    else entries.set(key, { key: value.at, node: inner })
    // Another package: the previous one's options do not apply.
    if (key === 'use' && old && toValue(old.node) !== toValue(inner)) {
      return {
        ...node,
        entries: new Map([...entries].filter(([name]) => name === 'use' || name === 'kind' || name === 'name')),
      }
    }
    return { ...node, entries }
  }
  return place(root, 0)
}
