/** A vCPU as a snapshot: architectural state, TSC offset, events that wait or were cut short. */

import { NonrootError } from '@nonroot/contracts'
import type { Snapshot, SnapshotValue, VcpuState } from '@nonroot/contracts'
import type { VmxVcpu } from './vcpu.ts'

const TYPE = 'vcpu.vmx'
const VERSION = 2

export function saveVcpu(vcpu: VmxVcpu): Snapshot {
  const { msrs, dr, ...rest } = vcpu.readState()
  const plain = rest as unknown as Record<string, SnapshotValue>
  return {
    type: TYPE,
    version: VERSION,
    data: {
      state: { ...plain, dr: [...dr], msrs: [...msrs].map(([index, value]) => [index, value]) },
      tscOffset: vcpu.vmcs.read('tscOffset'),
      events: vcpu.events.save(),
    },
  }
}

export function restoreVcpu(vcpu: VmxVcpu, { type, version, data }: Snapshot): void {
  if (type !== TYPE || version !== VERSION) {
    throw new NonrootError({
      code: 'snapshot.mismatch',
      message: `a VMX vCPU cannot restore ${type} version ${version}`,
    })
  }
  const { state, tscOffset, events } = data as unknown as {
    state: Omit<VcpuState, 'msrs'> & { msrs: [number, bigint][] }
    tscOffset: bigint
    events: SnapshotValue
  }
  vcpu.reset('powerUp')
  vcpu.writeState({ ...state, msrs: new Map(state.msrs) })
  vcpu.vmcs.write('tscOffset', tscOffset)
  vcpu.events.restore(events)
}
