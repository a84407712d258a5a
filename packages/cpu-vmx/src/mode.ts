/** The CPU mode `vmx`: vCPUs in non-root operation of a software processor. One per host. */

import { CR4_64, DEFINED } from '@nonroot/contracts'
import type { CpuMode, HostContext, X86VcpuPorts } from '@nonroot/contracts'
import { Families } from '@nonroot/vcpu'
import { CR4_VALID, createTiers, MAX_PHYSICAL_BITS, type TierOptions } from '@nonroot/x86'
import type { EntryCheckContext } from './entry/checks/index.ts'
import { VTPR } from './features/task-priority.ts'
import { VmxVcpu } from './vcpu.ts'
import { VMCS_HEADER, VMCS_REVISION } from './tables/vmcs-fields.ts'

export type VmxModeOptions = TierOptions

export function createVmxMode(options: VmxModeOptions, host: HostContext): CpuMode {
  const { hostMemory } = host
  const tiers = createTiers(options, host)
  const context: EntryCheckContext = {
    physicalAddressBits: MAX_PHYSICAL_BITS,
    cr4Fixed1: BigInt(CR4_VALID) | CR4_64.vmxe,
    eferMask: BigInt(DEFINED.efer),
    unrestrictedNeedsEpt: false,
    virtualTpr: (address) => hostMemory.bytes[Number(address) + VTPR] ?? 0,
    revisionAt: (address) => {
      if (address + 4096n > BigInt(hostMemory.bytes.length)) return undefined
      const revision = hostMemory.view.getUint32(Number(address) + VMCS_HEADER.revision, true)
      return revision === VMCS_REVISION ? revision : undefined
    },
  }
  const families = new Families()
  return {
    createVcpu(index: number, ports: X86VcpuPorts) {
      return new VmxVcpu(index, hostMemory, ports, families.of(ports.guestMemory, index), context, tiers.processorOptions(ports))
    },
    describe: () => ({
      processor: 'nonroot software processor',
      tiers: tiers.description,
      vmx: 'EPT, VPID, unrestricted guest',
    }),
    dispose: () => tiers.dispose(),
  }
}
