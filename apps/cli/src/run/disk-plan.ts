/** `run --disk FILE`: adds the disk to the machine, and boots the kernel on it. */

import { createNodeBackends } from '@nonroot/host-node'
import type { ModuleSource } from '@nonroot/contracts'
import type { StackConfig } from '@nonroot/hypervisor'
import { bootFromDisk, diskParts } from '@nonroot/image'
import type { DiskBoot } from '@nonroot/image'
import { appended } from './appended.ts'

const VIRTIO = '@nonroot/io-virtio'

export interface DiskPlan extends DiskBoot {
  /** Where it is, from the root of the host. */
  readonly file: string
  /** Changes of the configuration that attach it: the I/O model too, where the stack has it not. */
  readonly set: readonly string[]
}

export async function planDisk(name: string, config: StackConfig, source: ModuleSource): Promise<DiskPlan> {
  const file = source.resolvePath(source.workingFolder, name)
  const disk = await createNodeBackends({ block: diskParts }).open('block', { image: file, readOnly: true })
  try {
    const { io } = config.stack
    const set = [appended('devices', config.devices, { kind: 'virtio-blk', image: file })]
    if (!io.some(({ use }) => use === VIRTIO)) set.push(appended('stack.io', io, { use: VIRTIO }))
    return { ...(await bootFromDisk(disk, file)), file, set }
  } finally {
    await disk.close()
  }
}
