/** Whether the parts of a stack fit together: requires and provides, needs and gives. Independent of particular strategies. */

import { CAPABILITIES, NonrootError } from '@nonroot/contracts'
import type { Capability, Plugin, SourceLocation } from '@nonroot/contracts'
import { suggest } from './spelling.ts'

/** What this file uses of a part of a stack. */
export interface Part {
  /** `stack.paging` */
  readonly thing: string
  /** `@nonroot/mmu ept` */
  readonly label: string
  readonly location: SourceLocation
  readonly needs: readonly Capability[]
  readonly gives: readonly Capability[]
  readonly conflicts: readonly Capability[]
}

/** Why the parts do not fit together: one error for each unmet need and each conflict. */
export function incompatibilities(parts: readonly Part[]): NonrootError[] {
  const error = (part: Part, message: string, remedy: string): NonrootError =>
    new NonrootError({
      code: 'stack.incompatible',
      message,
      thing: part.thing,
      value: part.label,
      remedy,
      location: part.location,
    })
  const giversOf = (capability: Capability): Part[] => parts.filter((part) => part.gives.includes(capability))
  const meaning = (capability: Capability): string => {
    const text = (CAPABILITIES as Readonly<Record<string, string>>)[capability]
    return text ? `${capability} (${text})` : capability
  }
  const given = [...new Set(parts.flatMap((part) => part.gives))]
  return parts.flatMap((part) => [
    ...part.needs
      .filter((need) => giversOf(need).length === 0)
      .map((need) =>
        error(
          part,
          `${part.thing}: ${part.label} needs ${meaning(need)}, which nothing in this stack gives`,
          `the stack gives ${given.join(', ') || 'nothing'}; choose another strategy for ${part.thing}, or add one that gives ${need}`,
        ),
      ),
    ...part.conflicts.flatMap((conflict) =>
      giversOf(conflict)
        .filter((other) => other !== part)
        .map((other) =>
          error(
            part,
            `${part.thing}: ${part.label} cannot work with ${meaning(conflict)}, which ${other.label} (${other.thing}) brings`,
            `choose another strategy for ${part.thing} or for ${other.thing}`,
          ),
        ),
    ),
  ])
}

export interface PluginPart {
  readonly plugin: Plugin
  readonly thing: string
  readonly location: SourceLocation
}

/** What a plugin's name and definitions provide to `requires` of others. */
const offers = ({ plugin }: PluginPart): string[] => [
  plugin.name,
  ...(plugin.provides ?? []),
  ...(plugin.strategies ?? []).map((strategy) => `${strategy.role}:${strategy.name}`),
  ...(plugin.devices ?? []).map((device) => `device:${device.kind}`),
]

/** Required plugins first, otherwise in the given order. Missing plugins and cycles are errors. */
export function sortByRequires<T extends PluginPart>(parts: readonly T[]): T[] {
  const sorted: T[] = []
  const state = new Map<T, 'visiting' | 'done'>()
  const all = parts.flatMap(offers)
  const fail = (part: T, message: string, remedy: string): NonrootError =>
    new NonrootError({
      code: 'plugin.requires',
      message: `${part.thing}: ${message}`,
      thing: part.thing,
      value: part.plugin.name,
      remedy,
      location: part.location,
    })
  const visit = (part: T, chain: readonly T[]): void => {
    if (state.get(part) === 'done') return
    if (state.get(part) === 'visiting') {
      const names = [...chain.slice(chain.indexOf(part)), part].map((item) => item.plugin.name)
      throw fail(part, `plugins require each other in a circle: ${names.join(' -> ')}`, 'leave one of them out')
    }
    state.set(part, 'visiting')
    for (const wanted of part.plugin.requires ?? []) {
      const providers = parts.filter((other) => other !== part && offers(other).includes(wanted))
      if (providers.length === 0 && !offers(part).includes(wanted)) {
        throw fail(
          part,
          `${part.plugin.name} requires "${wanted}", which no other plugin of this stack provides`,
          suggest(wanted, all, 'provided') || 'add a plugin that provides it',
        )
      }
      for (const provider of providers) visit(provider, [...chain, part])
    }
    state.set(part, 'done')
    sorted.push(part)
  }
  for (const part of parts) visit(part, [])
  return sorted
}
