/** A VM as the host's reclaim policies see it, and what they may take of it. */

import { FRAME_SIZE } from '@nonroot/contracts'
import type { DiskPages, GuestFrames, ReclaimSubject } from '@nonroot/contracts'
import type { VmParts } from '../composition/compose.ts'
import type { Stack } from '../composition/stack.ts'
import type { KernelClock } from '../time/index.ts'
import type { VmOptions } from './options.ts'

const DEFAULT_SHARES = 1000

type ReclaimBounds = Pick<ReclaimSubject, 'minimumFrames' | 'maximumFrames' | 'shares' | 'group'>

/** What the embedder says, or else the configuration. */
export function boundsOf(
  { config }: Stack,
  wanted: VmOptions<never>['reclaim'] = {},
  frames: Pick<GuestFrames, 'size'>,
): ReclaimBounds {
  const { minimum = 0, maximum = frames.size, shares = DEFAULT_SHARES, group } = config.reclaim ?? {}
  return {
    minimumFrames: wanted.minimumFrames ?? minimum / FRAME_SIZE,
    maximumFrames: wanted.maximumFrames ?? Math.min(maximum, frames.size) / FRAME_SIZE,
    shares: wanted.shares ?? shares,
    group: wanted.group ?? group,
  }
}

export function subjectOf(
  name: string,
  frames: GuestFrames,
  { paging, io, devices }: VmParts,
  clock: KernelClock,
  bounds: ReclaimBounds,
  onDisk: DiskPages | undefined,
): ReclaimSubject {
  return {
    name,
    frames,
    takeAccessed: (address) => paging.takeAccessed?.(address),
    ...bounds,
    onDisk,
    isDeterministic: clock.kind === 'deterministic',
    devices: new Map([...io.flatMap((model) => [...(model.devices ?? [])]), ...devices]),
  }
}
