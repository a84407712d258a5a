/** Memory that is plugged and unplugged in blocks, as a reclaim policy sees it. Independent of the device type. */

import { token } from '../base/token.ts'

/** Offered by devices in `Device.offers`. All sizes in frames. */
export interface PluggableMemory {
  /** The smallest amount that is plugged or unplugged. */
  readonly blockFrames: number
  /** What the region has at most. */
  readonly regionFrames: number
  /** What the configuration says that the guest should have. */
  readonly usualFrames: number
  /** What the guest is asked to have plugged, and what it has. */
  readonly requestedFrames: number
  readonly pluggedFrames: number
  /** Asks for so much, rounded down to blocks. The guest follows when it can, as `pluggedFrames` shows. */
  request(frames: number): void
}
export const PluggableMemory = token<PluggableMemory>('PluggableMemory')
