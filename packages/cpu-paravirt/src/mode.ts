/** The CPU mode `paravirt`: one software processor a vCPU, VMX not in use. One per host. */

import { NonrootError } from '@nonroot/contracts'
import type { CpuMode, HostContext, X86VcpuPorts } from '@nonroot/contracts'
import { createTiers, type TierOptions } from '@nonroot/x86'
import { ParavirtVcpu } from './vcpu.ts'

export type ParavirtModeOptions = TierOptions

export function createParavirtMode(options: ParavirtModeOptions, host: HostContext): CpuMode {
  const tiers = createTiers(options, host)
  return {
    createVcpu(index: number, ports: X86VcpuPorts) {
      const { tableCalls: tables } = ports.paging
      if (!tables) {
        throw new NonrootError({
          code: 'stack.incompatible',
          message: 'CPU mode paravirt works with a paging strategy whose tables are changed by call',
          thing: 'stack.paging',
          remedy: 'choose stack.paging: { use: "@nonroot/mmu", strategy: direct }',
        })
      }
      return new ParavirtVcpu(index, host.hostMemory, ports, tables, tiers.processorOptions(ports))
    },
    describe: () => ({
      processor: 'nonroot software processor',
      tiers: tiers.description,
      entry: "Xen's paravirtual interface, 64-bit",
    }),
    dispose: () => tiers.dispose(),
  }
}
