/** Devices that a run adds to a configuration, all of them virtio's. */

import type { StackConfig } from '@nonroot/hypervisor'

const VIRTIO = '@nonroot/io-virtio'

export const hasVirtio = ({ stack }: StackConfig): boolean => stack.io.some(({ use }) => use === VIRTIO)

/** Changes of the configuration, as after `--set`, that attach them: the I/O model too, where the stack has it not. */
export function attached(config: StackConfig, added: readonly object[]): string[] {
  const { devices, stack } = config
  if (added.length === 0) return []
  const items = added.map((device, index) => `devices.${devices.length + index}=${JSON.stringify(device)}`)
  const set = devices.length === 0 ? [`devices=${JSON.stringify(added)}`] : items
  if (hasVirtio(config)) return set
  return [...set, stack.io.length === 0 ? `stack.io=[{"use":"${VIRTIO}"}]` : `stack.io.${stack.io.length}={"use":"${VIRTIO}"}`]
}
