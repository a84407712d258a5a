/** A balloon as a reclaim policy sees it: memory that a guest gives back on request. Independent of the device type. */

import { token } from '../base/token.ts'

/** The guest's memory statistics. All optional; in bytes, or counts since boot. */
export interface BalloonStatistics {
  readonly freeBytes?: number
  readonly totalBytes?: number
  readonly availableBytes?: number
  readonly cacheBytes?: number
  readonly swappedInBytes?: number
  readonly swappedOutBytes?: number
  readonly majorFaults?: number
  readonly minorFaults?: number
  readonly hugePagesAllocated?: number
  readonly hugePagesFailed?: number
}

/** Offered by devices in `Device.offers`. */
export interface Balloon {
  /** Frames requested of the guest, and frames it reports as given. */
  readonly targetFrames: number
  readonly actualFrames: number
  /** Requests a total of so many frames. The guest follows when it can, as `actualFrames` shows. */
  setTarget(frames: number): void
  /** Called whenever `actualFrames` may have changed. */
  onChange(listener: (actualFrames: number) => void): () => void
  /** Requests current statistics from the guest. Undefined: its driver has none, or was removed meanwhile. */
  statistics(): Promise<BalloonStatistics | undefined>
  /** Ranges whose content the guest does not need at present. Undefined: its driver gives no hints. */
  freePages(): Promise<readonly { readonly address: number; readonly length: number }[] | undefined>
}
export const Balloon = token<Balloon>('Balloon')
