/** What a guest's driver and this card have agreed on. */

import type { FrameOffloads } from '@nonroot/contracts'
import type { LocalPort } from '../../event-channels.ts'
import type { BackRing } from '../ring.ts'
import type { FrontEnd } from '../split-device.ts'

export interface Connection {
  readonly send: BackRing
  readonly receive: BackRing
  readonly sendPort: LocalPort
  readonly receivePort: LocalPort
  readonly guest: FrontEnd
  /** What the guest takes unfinished. */
  readonly offloads: FrameOffloads
}
