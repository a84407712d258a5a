/** Finds the kernel and initramfs of the system on a disk, in its file system. */

import type { BlockBackend } from '@nonroot/contracts'
import type { Bytes } from '../bytes.ts'
import { Ext4Reader } from '../disk/ext4/reader.ts'
import { BOOT_FOLDER, bootFiles } from './rootfs.ts'

export interface DiskBoot {
  /** Of the file system on the disk: for `root=UUID=`. Absent: it has none that we know. */
  readonly uuid?: string
  /** Absent: there is none on the disk. */
  readonly kernel?: Bytes
  readonly initrd?: Bytes
  /** The initramfs is ours: it knows our parameters, and runs commands. */
  readonly ours: boolean
  /** Whether there is a program /sbin/init. Absent: the file system is not one that we know. */
  readonly init?: boolean
}

/** `/vmlinuz` and `/initrd.img` are Debian's links to the newest; ours are taken where they are of that one. */
export async function bootFromDisk(disk: BlockBackend, name: string): Promise<DiskBoot> {
  const system = await Ext4Reader.open(disk, name)
  if (!system) return { ours: false }
  const { uuid } = system
  const init = (await system.find('/sbin/init')) !== undefined
  const newest = (await system.find('/vmlinuz')) ?? (await system.find('/boot/vmlinuz'))
  const release = newest && /vmlinuz-(.+)$/.exec(newest.path)?.[1]
  const own = release ?? (await system.list(BOOT_FOLDER)).map((file) => /^vmlinux-(.+)$/.exec(file)?.[1]).find(Boolean)
  if (own !== undefined) {
    const files = bootFiles(own)
    const [kernel, initrd] = [await system.find(files.kernel), await system.find(files.initrd)]
    if (kernel && initrd) return { uuid, init, kernel: await kernel.read(), initrd: await initrd.read(), ours: true }
  }
  const initrd = (await system.find('/initrd.img')) ?? (await system.find('/boot/initrd.img'))
  if (!newest || !initrd) return { uuid, init, ours: false }
  return { uuid, init, kernel: await newest.read(), initrd: await initrd.read(), ours: false }
}
