/** The CPU mode `vmx`: vCPUs in non-root operation of a software processor. One per host. */

import { CR4_64, DEFINED } from '@nonroot/contracts'
import type { CpuMode, GuestMemory, HostContext, X86VcpuPorts } from '@nonroot/contracts'
import {
  CR4_VALID,
  createThreadedRegionService,
  MAX_PHYSICAL_BITS,
  PREBUILT_HANDLERS,
  readPrebuilt,
} from '@nonroot/x86'
import type { EntryCheckContext } from './entry/checks/index.ts'
import { VTPR } from './features/task-priority.ts'
import { VmxVcpu } from './vcpu.ts'
import { VMCS_HEADER, VMCS_REVISION } from './tables/vmcs-fields.ts'

export interface VmxModeOptions {
  /** MiB for decoded code, per vCPU. Default 128. */
  readonly codeCacheMiB?: number | undefined
  /** Default `both`. */
  readonly tiers?: 'interpreter' | 'both' | undefined
}

export function createVmxMode(options: VmxModeOptions, { hostMemory, threads, prebuilt, log }: HostContext): CpuMode {
  const { tiers = 'both' } = options
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
  /** vCPUs of each VM, for the topology that CPUID shows. */
  const siblings = new WeakMap<GuestMemory, { count: number }>()
  const regions = threads && createThreadedRegionService(threads, (problem) => log.warn(problem))
  const file = prebuilt?.(PREBUILT_HANDLERS)
  const handlers = file && readPrebuilt(file)
  return {
    createVcpu(index: number, ports: X86VcpuPorts) {
      let family = siblings.get(ports.guestMemory)
      if (!family) siblings.set(ports.guestMemory, (family = { count: 0 }))
      family.count = Math.max(family.count, index + 1)
      const codeCache = options.codeCacheMiB === undefined ? undefined : options.codeCacheMiB << 20
      // When a region is ready depends on the host's speed, so regions are not shared where runs must be repeatable.
      const repeats = ports.clock.kind === 'deterministic'
      return new VmxVcpu(index, hostMemory, ports, family, context, {
        codeCache,
        compile: tiers === 'both',
        regions: repeats ? undefined : regions,
        prebuilt: handlers,
      })
    },
    describe: () => ({
      processor: 'nonroot software processor',
      tiers:
        tiers === 'interpreter'
          ? tiers
          : regions
            ? 'interpreter, compiler on a thread of its own'
            : 'interpreter, compiler',
      vmx: 'EPT, VPID, unrestricted guest',
    }),
    dispose: () => regions?.dispose(),
  }
}
