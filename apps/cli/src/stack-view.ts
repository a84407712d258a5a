/** A stack as data and as a tree of text: the same for every role and device. */

import { formatSize } from '@nonroot/contracts'
import type { DeviceLayer, Stack, StrategyLayer } from '@nonroot/hypervisor'

export interface LayerView {
  /** `cpu`, `io[0]`, `devices[0]` */
  readonly place: string
  readonly role: string
  readonly package: string
  readonly version: string
  readonly strategy: string
  readonly summary: string
  readonly options: unknown
  readonly needs: readonly string[]
  readonly gives: readonly string[]
  /** Devices only. */
  readonly name?: string
}

export interface StackView {
  readonly file: string
  readonly machine: Stack['config']['machine']
  readonly layers: readonly LayerView[]
  readonly devices: readonly LayerView[]
  readonly boot: LayerView | undefined
}

const base = (layer: StrategyLayer | DeviceLayer) => ({
  place: layer.thing.replace(/^stack\./, ''),
  package: layer.package.name,
  version: layer.package.version,
  summary: layer.definition.summary,
  options: layer.options,
  needs: layer.definition.needs ?? [],
  gives: layer.definition.gives ?? [],
})

const strategyView = (layer: StrategyLayer): LayerView => ({
  ...base(layer),
  role: layer.role,
  strategy: (layer.definition as { name: string }).name,
})

export function viewStack(stack: Stack): StackView {
  const strategies = [stack.cpu, stack.paging, stack.abi, ...stack.io, ...stack.reclaim, stack.scheduler]
  return {
    file: stack.file,
    machine: stack.config.machine,
    layers: strategies
      .filter((layer) => layer !== undefined)
      .map((layer) => strategyView(layer as unknown as StrategyLayer)),
    devices: stack.devices.map((layer) => ({
      ...base(layer),
      role: 'device',
      name: layer.name,
      strategy: layer.definition.kind,
    })),
    boot: stack.boot && strategyView(stack.boot as unknown as StrategyLayer),
  }
}

export const machineText = ({ memory, vcpus, clock }: StackView['machine']): string =>
  `${formatSize(memory)}, ${vcpus} vCPU${vcpus === 1 ? '' : 's'}, ${clock} clock`

/** `{ rate: 10 }`, or nothing for no options. */
export function optionsText(options: unknown): string {
  if (options === null || typeof options !== 'object') return optionLines(options).join('')
  const lines = optionLines(options)
  return lines.length ? `{ ${lines.join(', ')} }` : ''
}

/** `rate: 10`, each. */
export function optionLines(options: unknown): string[] {
  if (options === null || typeof options !== 'object') return options === undefined ? [] : [String(options)]
  const entries = Object.entries(options).filter(([, value]) => value !== undefined)
  return entries.map(([key, value]) => `${key}: ${JSON.stringify(value)}`)
}

interface Branch {
  readonly label: string
  readonly children?: readonly Branch[]
}

const layerBranch = (view: LayerView): Branch => ({
  label: [
    (view.name ?? view.place).padEnd(10),
    `${view.package}@${view.version}`,
    '→',
    view.strategy,
    optionsText(view.options),
  ]
    .filter(Boolean)
    .join(' '),
})

export function treeText(view: StackView, title: string): string {
  const branches: Branch[] = [
    ...view.layers.map(layerBranch),
    { label: `machine    ${machineText(view.machine)}`, children: view.devices.map(layerBranch) },
    ...(view.boot ? [layerBranch(view.boot)] : []),
  ]
  return [title, ...lines(branches, '')].join('\n') + '\n'
}

function lines(branches: readonly Branch[], indent: string): string[] {
  return branches.flatMap((branch, index) => {
    const last = index === branches.length - 1
    return [
      `${indent}${last ? '└─' : '├─'} ${branch.label}`,
      ...lines(branch.children ?? [], `${indent}${last ? '   ' : '│  '}`),
    ]
  })
}
