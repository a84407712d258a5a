/** A balloon as a reclaim policy sees it: memory that a guest gives back on request. Knows no device type. */

import { token } from '../base/token.ts'

/** What a guest says of its memory. All optional, bytes or counts since it booted. */
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

/** Found by `Device.offers`. */
export interface Balloon {
  /** Frames the guest was asked for, and frames it says it has given. */
  readonly targetFrames: number
  readonly actualFrames: number
  /** Ask for so many frames in all. The guest follows when it can; `actualFrames` tells. */
  setTarget(frames: number): void
  /** Called whenever `actualFrames` may have changed. */
  onChange(listener: (actualFrames: number) => void): () => void
  /** Ask the guest anew. Undefined: its driver has no statistics, or went away meanwhile. */
  statistics(): Promise<BalloonStatistics | undefined>
  /** Ranges that hold nothing the guest needs, as of now. Undefined: its driver gives no hints. */
  freePages(): Promise<readonly { readonly address: number; readonly length: number }[] | undefined>
}
export const Balloon = token<Balloon>('Balloon')
