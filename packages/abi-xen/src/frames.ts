/** A domain's frames, by the frame numbers in its hypercalls: machine frames for a paravirtual guest, guest-physical frames otherwise. */

import type { TableCalls } from '@nonroot/contracts'

export type DomainFrames = Pick<TableCalls, 'hold' | 'release' | 'hostAddress' | 'addressOf' | 'shareFrame'>
