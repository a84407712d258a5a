/** What a disk counts, whatever its commands are called. */

import type { Counter, Metrics } from '@nonroot/contracts'

export type DiskCounters = Readonly<
  Record<'reads' | 'writes' | 'flushes' | 'errors' | 'bytesRead' | 'bytesWritten', Counter>
>

export const createDiskCounters = (metrics: Metrics): DiskCounters => ({
  reads: metrics.counter('reads', 'read commands'),
  writes: metrics.counter('writes', 'write commands'),
  flushes: metrics.counter('flushes', 'flush commands'),
  errors: metrics.counter('errors', 'commands that failed'),
  bytesRead: metrics.counter('bytesRead', 'bytes read from the back end', 'bytes'),
  bytesWritten: metrics.counter('bytesWritten', 'bytes written to the back end', 'bytes'),
})
