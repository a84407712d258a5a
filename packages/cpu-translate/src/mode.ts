/** The CPU mode `translate`: one software processor a vCPU, VMX not in use. One per host. */

import type { CpuMode, GuestMemory, HostContext, X86VcpuPorts } from '@nonroot/contracts'
import { createThreadedRegionService, PREBUILT_HANDLERS, readPrebuilt } from '@nonroot/x86'
import { TranslateVcpu } from './vcpu.ts'

export interface TranslateModeOptions {
  /** MiB for the processor's decoded code, per vCPU. Default 128. */
  readonly codeCacheMiB?: number | undefined
  /** MiB for translated kernel code, per vCPU. Default 8. */
  readonly translationCacheMiB?: number | undefined
  /** Default `both`. */
  readonly tiers?: 'interpreter' | 'both' | undefined
  /** Default `on`. */
  readonly translate?: 'on' | 'off' | undefined
}

export function createTranslateMode(
  options: TranslateModeOptions,
  { hostMemory, threads, prebuilt, log }: HostContext,
): CpuMode {
  const { tiers = 'both', translate = 'on', translationCacheMiB = 8 } = options
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
      return new TranslateVcpu(index, hostMemory, ports, family, {
        translates: translate === 'on',
        translationCache: translationCacheMiB << 20,
        processor: {
          compile: tiers === 'both',
          ...(codeCache === undefined ? {} : { codeCache }),
          regions: repeats ? undefined : regions,
          prebuilt: handlers,
        },
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
      kernel: translate === 'on' ? '64-bit code translated, other code interpreted' : 'trap and emulate',
    }),
    dispose: () => regions?.dispose(),
  }
}
