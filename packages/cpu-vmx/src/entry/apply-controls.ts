/** What the VM-execution controls mean, settled once after each change and not asked at every instruction. */

import { S } from '@nonroot/x86'
import { ProcessorControl, SecondaryControl } from '../tables/controls.ts'
import type { VmxVcpu } from '../vcpu.ts'

export function settleControls(vcpu: VmxVcpu): void {
  const { controls, vmcs, surroundings, pagingPort, guestState } = vcpu
  controls.refresh(vmcs)
  vcpu.core.set32(S.pauseExits, controls.pauseMayExit ? 1 : 0)
  vcpu.taskPriority.settle(controls)
  vcpu.modificationLog.settle(controls)
  const offsetting = (controls.processor & ProcessorControl.useTscOffsetting) !== 0
  const scaling = offsetting && (controls.secondary & SecondaryControl.useTscScaling) !== 0
  guestState.setTscOffsetting(vmcs, offsetting)
  surroundings.tscMultiplier = scaling ? vmcs.read('tscMultiplier') : undefined
  // Writes to memory come past the hardware's tables only where those are the hypervisor's.
  surroundings.onTableWrite = pagingPort.intercepts.pageFault
    ? (address, size) => vcpu.heed(vcpu.ports.paging.onTableUpdate(pagingPort, address, size))
    : undefined
}
