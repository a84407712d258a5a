/** The CPU mode `paravirt`: one software processor a vCPU, VMX not in use. One per host. */

import { NonrootError } from '@nonroot/contracts'
import type { CpuMode, HostContext, X86VcpuPorts } from '@nonroot/contracts'
import { createThreadedRegionService, PREBUILT_HANDLERS, readPrebuilt } from '@nonroot/x86'
import { ParavirtVcpu } from './vcpu.ts'

export interface ParavirtModeOptions {
  /** MiB for decoded code of each vCPU. Default 128. */
  readonly codeCacheMiB?: number | undefined
  /** Default `both`. */
  readonly tiers?: 'interpreter' | 'both' | undefined
}

export function createParavirtMode(
  options: ParavirtModeOptions,
  { hostMemory, threads, prebuilt, log }: HostContext,
): CpuMode {
  const { tiers = 'both' } = options
  const regions = threads && createThreadedRegionService(threads, (problem) => log.warn(problem))
  const file = prebuilt?.(PREBUILT_HANDLERS)
  const handlers = file && readPrebuilt(file)
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
      const codeCache = options.codeCacheMiB === undefined ? undefined : options.codeCacheMiB << 20
      // When a region is ready depends on how fast this computer is: not where a run must repeat itself.
      const repeats = ports.clock.kind === 'deterministic'
      return new ParavirtVcpu(index, hostMemory, ports, tables, {
        compile: tiers === 'both',
        ...(codeCache === undefined ? {} : { codeCache }),
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
      entry: "Xen's paravirtual interface, 64-bit",
    }),
    dispose: () => regions?.dispose(),
  }
}
