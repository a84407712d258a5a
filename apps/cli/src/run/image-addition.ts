/** What a run adds to its image: kernel parameters, and an archive appended to the initramfs. Plain data: it is sent to the VM's thread. */

import { bytesOf } from '@nonroot/contracts'
import type { BootImage } from '@nonroot/contracts'

export interface ImageAddition {
  /** Of the kernel. */
  readonly parameters: readonly string[]
  /** Linux unpacks one archive after the other. */
  readonly overlay?: Uint8Array
  /** The guest's system is on this disk. */
  readonly disk?: RootDisk
}

export interface RootDisk {
  /** Of its root file system. */
  readonly uuid?: string
}

export function withAddition(image: BootImage, { parameters, overlay, disk }: ImageAddition): BootImage {
  const { cmdline = '', initrd } = image
  const whole = disk ? withRoot(cmdline, disk, initrd !== undefined) : cmdline
  return {
    ...image,
    cmdline: [whole, ...parameters].join(' ').trim(),
    ...(overlay ? { initrd: concat(bytesOf(initrd ?? new Uint8Array()), overlay) } : {}),
  }
}

/** Of a disk that has no file system we know: the first, which it is on a machine that has no other. */
const FIRST_DISK = '/dev/vda'

/**
 * What makes a system of the disk the guest's, unless the command line says already. Without an initramfs only the kernel itself looks, and knows
 * no UUIDs.
 */
function withRoot(cmdline: string, { uuid }: RootDisk, hasInitrd: boolean): string {
  if (/(^|\s)root=/.test(cmdline)) return cmdline
  return `${cmdline} root=${hasInitrd && uuid !== undefined ? `UUID=${uuid}` : FIRST_DISK} ro`.trim()
}

function concat(first: Uint8Array, second: Uint8Array): Uint8Array {
  // Archives of an initramfs start at multiples of four.
  const start = Math.ceil(first.length / 4) * 4
  const whole = new Uint8Array(start + second.length)
  whole.set(first)
  whole.set(second, start)
  return whole
}
