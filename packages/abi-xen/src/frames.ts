/** A domain's frames, by the numbers that its calls name them by: machine frames of a paravirtual guest, else its own. */

import type { TableCalls } from '@nonroot/contracts'

export type DomainFrames = Pick<TableCalls, 'hold' | 'release' | 'hostAddress' | 'shareFrame'>
