/** The tiers of a host's processors, as CPU modes choose them by their options. One for each mode of a host. */

import { EXACT_BUDGET } from '@nonroot/contracts'
import type { HostContext, X86VcpuPorts } from '@nonroot/contracts'
import { createThreadedRegionService } from './compiler/compile-thread.ts'
import { RegionMemory } from './compiler/region-memory.ts'
import { BUILD, PREBUILT_HANDLERS, readPrebuilt } from './interpreter/prebuilt.ts'
import type { ProcessorOptions } from './processor.ts'

export interface TierOptions {
  /** MiB for decoded code, per vCPU. Default 128. */
  readonly codeCacheMiB?: number | undefined
  /** Default `both`. */
  readonly tiers?: 'interpreter' | 'both' | undefined
}

export interface Tiers {
  /** For `nonroot info` and reports. */
  readonly description: string
  processorOptions(ports: Pick<X86VcpuPorts, 'clock'>): ProcessorOptions
  dispose(): void
}

export function createTiers({ codeCacheMiB, tiers = 'both' }: TierOptions, { threads, prebuilt, openCodeMemory, log }: HostContext): Tiers {
  const regions = threads && createThreadedRegionService(threads, (problem) => log.warn(problem))
  const file = prebuilt?.(PREBUILT_HANDLERS)
  const handlers = file && readPrebuilt(file)
  const codeMemory = BUILD === '' ? undefined : openCodeMemory?.(BUILD)
  const regionMemory = codeMemory && new RegionMemory(codeMemory)
  return {
    description: tiers === 'interpreter' ? tiers : regions ? 'interpreter, compiler on a thread of its own' : 'interpreter, compiler',
    processorOptions: ({ clock }) => ({
      codeCache: codeCacheMiB === undefined ? undefined : codeCacheMiB << 20,
      compile: tiers === 'both',
      // When a region is ready depends on the host's speed, so regions are not shared where runs must be repeatable.
      regions: clock.kind === 'deterministic' ? undefined : regions,
      regionMemory: clock.kind === 'deterministic' ? undefined : regionMemory,
      exactBudget: clock.kind === 'deterministic' ? EXACT_BUDGET : 0,
      prebuilt: handlers,
    }),
    dispose() {
      regions?.dispose()
      codeMemory?.dispose()
    },
  }
}
