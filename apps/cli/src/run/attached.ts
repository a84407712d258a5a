/** Devices that a run adds to a configuration: Xen's where the stack has them, else virtio's. */

import { NonrootError } from '@nonroot/contracts'
import type { StackConfig } from '@nonroot/hypervisor'

const VIRTIO = '@nonroot/io-virtio'

export const hasVirtio = ({ stack }: StackConfig): boolean => stack.io.some(({ use }) => use === VIRTIO)

/** The kinds of disk and card that a stack's guests have drivers for. */
export const usualKinds = ({ stack }: StackConfig): { readonly disk: string; readonly card: string } =>
  stack.io.some(({ use }) => use === '@nonroot/io-xen')
    ? { disk: 'xen-blkback', card: 'xen-netback' }
    : { disk: 'virtio-blk', card: 'virtio-net' }

export const isVirtio = (device: object): boolean => 'kind' in device && String(device.kind).startsWith('virtio-')

/** `KIND,OPTION=VALUE,...`, as after `--device`; a comma of a value is written twice. Values are those of `--set`. */
export function deviceSettings(config: StackConfig, texts: readonly string[]): string[] {
  return texts.flatMap((text, index) => {
    const [kind = '', ...options] = text.split(/(?<!,),(?!,)/).map((part) => part.replaceAll(',,', ','))
    const wrong = options.find((option) => !/^[\w-]+(\.[\w-]+|\[\d+\])*=/.test(option))
    if (kind === '' || kind.includes('=') || wrong !== undefined)
      throw new NonrootError({
        code: 'usage',
        message: `--device ${text}: ${wrong === undefined ? 'there is no kind in it' : `"${wrong}" is no OPTION=VALUE`}`,
        thing: '--device',
        value: text,
        remedy: 'write KIND,OPTION=VALUE, as in virtio-blk,image=disk.qcow2',
      })
    const at = `devices[${config.devices.length + index}]`
    return [`${at}.kind=${kind}`, ...options.map((option) => `${at}.${option}`)]
  })
}

/** Changes of the configuration, as after `--set`, that attach them: the I/O model too, where the stack has it not. */
export function attached(config: StackConfig, added: readonly object[]): string[] {
  const { devices, stack } = config
  if (added.length === 0) return []
  const items = added.map((device, index) => `devices.${devices.length + index}=${JSON.stringify(device)}`)
  const set = devices.length === 0 ? [`devices=${JSON.stringify(added)}`] : items
  if (hasVirtio(config) || !added.some(isVirtio)) return set
  return [...set, stack.io.length === 0 ? `stack.io=[{"use":"${VIRTIO}"}]` : `stack.io.${stack.io.length}={"use":"${VIRTIO}"}`]
}
