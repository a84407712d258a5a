/** `run --disk FILE`: the device of the disk, and the kernel on it. */

import { createNodeBackends } from '@nonroot/host-node'
import type { ModuleSource } from '@nonroot/contracts'
import { bootFromDisk, diskParts } from '@nonroot/image'
import type { DiskBoot } from '@nonroot/image'
import type { StackConfig } from '@nonroot/hypervisor'
import { usualKinds } from './attached.ts'

export interface DiskPlan extends DiskBoot {
  /** Where it is, from the root of the host. */
  readonly file: string
  readonly device: object
}

export async function planDisk(name: string, config: StackConfig, source: ModuleSource): Promise<DiskPlan> {
  const file = source.resolvePath(source.workingFolder, name)
  const disk = await createNodeBackends({ block: diskParts }).open('block', { image: file, readOnly: true })
  try {
    return { ...(await bootFromDisk(disk, file)), file, device: { kind: usualKinds(config).disk, image: file } }
  } finally {
    await disk.close()
  }
}
