/** The snapshot of a vCPU: architectural state, TSC offset, and events that wait or were interrupted. */

import { NonrootError } from '@nonroot/contracts'
import type { Snapshot, SnapshotValue, VcpuState } from '@nonroot/contracts'

const TYPE = 'vcpu.translate'
const VERSION = 1

export interface SavedVcpu {
  readonly state: VcpuState
  readonly tscOffset: bigint
  readonly events: SnapshotValue
}

export function writeSnapshot({ state, tscOffset, events }: SavedVcpu): Snapshot {
  const { msrs, dr, ...rest } = state
  const plain = rest as unknown as Record<string, SnapshotValue>
  return {
    type: TYPE,
    version: VERSION,
    data: {
      state: { ...plain, dr: [...dr], msrs: [...msrs].map(([index, value]) => [index, value]) },
      tscOffset,
      events,
    },
  }
}

export function readSnapshot({ type, version, data }: Snapshot): SavedVcpu {
  if (type !== TYPE || version !== VERSION) {
    throw new NonrootError({
      code: 'snapshot.mismatch',
      message: `a translating vCPU cannot restore ${type} version ${version}`,
    })
  }
  const { state, ...rest } = data as unknown as Omit<SavedVcpu, 'state'> & {
    state: Omit<VcpuState, 'msrs'> & { msrs: [number, bigint][] }
  }
  return { ...rest, state: { ...state, msrs: new Map(state.msrs) } }
}
