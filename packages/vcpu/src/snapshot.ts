/** The snapshot of a vCPU: architectural state, TSC offset, and events that wait or were interrupted. */

import { snapshotData } from '@nonroot/contracts'
import type { Snapshot, SnapshotValue, VcpuState } from '@nonroot/contracts'

/** What a CPU mode's snapshots are marked with. */
export interface SnapshotFormat {
  readonly type: string
  readonly version: number
}

export interface SavedVcpu {
  readonly state: VcpuState
  readonly tscOffset: bigint
  readonly events: SnapshotValue
}

export function writeSnapshot({ type, version }: SnapshotFormat, { state, tscOffset, events }: SavedVcpu): Snapshot {
  const { msrs, dr, ...rest } = state
  const plain = rest as unknown as Record<string, SnapshotValue>
  return {
    type,
    version,
    data: {
      state: { ...plain, dr: [...dr], msrs: [...msrs].map(([index, value]) => [index, value]) },
      tscOffset,
      events,
    },
  }
}

export function readSnapshot({ type, version }: SnapshotFormat, snapshot: Snapshot): SavedVcpu {
  const data = snapshotData(snapshot, type, version)
  const { state, ...rest } = data as unknown as Omit<SavedVcpu, 'state'> & {
    state: Omit<VcpuState, 'msrs'> & { msrs: [number, bigint][] }
  }
  return { ...rest, state: { ...state, msrs: new Map(state.msrs) } }
}
