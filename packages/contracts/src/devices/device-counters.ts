/** What disks and network cards count, however a driver reaches them. */

import type { Counter, Metrics } from '../base/metrics.ts'

export type DiskCounters = Readonly<
  Record<'reads' | 'writes' | 'flushes' | 'errors' | 'bytesRead' | 'bytesWritten', Counter>
>

/** `kind`: what the disk's interface calls them. */
export const createDiskCounters = (metrics: Metrics, kind: 'command' | 'request'): DiskCounters => ({
  reads: metrics.counter('reads', `read ${kind}s`),
  writes: metrics.counter('writes', `write ${kind}s`),
  flushes: metrics.counter('flushes', `flush ${kind}s`),
  errors: metrics.counter('errors', `${kind}s that failed`),
  bytesRead: metrics.counter('bytesRead', 'bytes read from the back end', 'bytes'),
  bytesWritten: metrics.counter('bytesWritten', 'bytes written to the back end', 'bytes'),
})

export type CardCounters = Readonly<Record<'sent' | 'received' | 'bytesSent' | 'bytesReceived' | 'dropped', Counter>>

/** `dropped`: which frames are, as in "frames that were malformed". */
export const createCardCounters = (metrics: Metrics, dropped: string): CardCounters => ({
  sent: metrics.counter('framesSent', 'frames that the driver sent'),
  received: metrics.counter('framesReceived', 'frames that the driver received'),
  bytesSent: metrics.counter('bytesSent', 'bytes of frames that the driver sent', 'bytes'),
  bytesReceived: metrics.counter('bytesReceived', 'bytes of frames that the driver received', 'bytes'),
  dropped: metrics.counter('framesDropped', dropped),
})
