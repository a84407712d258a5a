/** The CPU mode `translate`: one software processor a vCPU, VMX not in use. One per host. */

import type { CpuMode, HostContext, X86VcpuPorts } from '@nonroot/contracts'
import { Families } from '@nonroot/vcpu'
import { createTiers, type TierOptions } from '@nonroot/x86'
import { TranslateVcpu } from './vcpu.ts'

export interface TranslateModeOptions extends TierOptions {
  /** MiB for translated kernel code, per vCPU. Default 8. */
  readonly translationCacheMiB?: number | undefined
  /** Default `on`. */
  readonly translate?: 'on' | 'off' | undefined
}

export function createTranslateMode(options: TranslateModeOptions, host: HostContext): CpuMode {
  const { translate = 'on', translationCacheMiB = 8 } = options
  const tiers = createTiers(options, host)
  const families = new Families()
  return {
    createVcpu: (index: number, ports: X86VcpuPorts) =>
      new TranslateVcpu(index, host.hostMemory, ports, families.of(ports.guestMemory, index), {
        translates: translate === 'on',
        translationCache: translationCacheMiB * 2 ** 20,
        processor: tiers.processorOptions(ports),
      }),
    describe: () => ({
      processor: 'nonroot software processor',
      tiers: tiers.description,
      kernel: translate === 'on' ? '64-bit code translated, other code interpreted' : 'trap and emulate',
    }),
    dispose: () => tiers.dispose(),
  }
}
