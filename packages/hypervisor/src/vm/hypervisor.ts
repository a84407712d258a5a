/** A host with a stack, and its VMs. */

import type { ConsoleBackend, HostFunctionInfo, HostMemory, MetricSample } from '@nonroot/contracts'
import { composeHost } from '../composition/compose.ts'
import type { Stack } from '../composition/stack.ts'
import { HostMachine } from '../host-machine/index.ts'
import { createHostMemory, defaultHostSize, mostRam } from '../memory/index.ts'
import { Reclaim } from '../memory/reclaim.ts'
import { createLog } from '../metrics/log.ts'
import { createMetrics } from '../metrics/metrics.ts'
import { assembleVm } from './assemble-vm.ts'
import type { StreamConsole } from './console.ts'
import { HostThread } from './host-thread.ts'
import type { KernelVm } from './kernel-vm.ts'
import type { HypervisorOptions, VmOptions } from './options.ts'
import { EventLoopPace } from './pace.ts'
import { join } from './path.ts'
import type { Vm } from './vm.ts'

export interface Hypervisor {
  readonly stack: Stack
  readonly hostMemory: HostMemory
  /** Throws if the machine cannot be created or the image cannot be placed. */
  createVm(options?: VmOptions<StreamConsole>): Promise<Vm & { readonly console: StreamConsole }>
  createVm<Console extends ConsoleBackend>(options: VmOptions<Console>): Promise<Vm & { readonly console: Console }>
  /** The host's own PCI functions, and who owns each. */
  functions(): HostFunctionInfo[]
  /** Metrics of the host: its scheduler, its reclaim policies. */
  samples(): MetricSample[]
  dispose(): Promise<void>
}

/** `const vm = await (await createHypervisor(stack, { backends })).createVm()`, then `await vm.run()`. */
export async function createHypervisor(stack: Stack, options: HypervisorOptions): Promise<Hypervisor> {
  const log = options.log ?? createLog(() => {})
  const metrics = createMetrics()
  const { machine, host } = stack.config
  const hostMemory =
    options.hostMemory ?? createHostMemory(host.memory ?? defaultHostSize(mostRam(machine), machine.vcpus))
  const parts = await composeHost(stack, {
    hostMemory,
    metrics: metrics.scope('host'),
    log,
    threads: options.backends.threads,
    prebuilt: options.backends.prebuilt,
    openCodeMemory: options.backends.openCodeMemory,
    openSwap: ({ file, ...request }, folder) =>
      options.backends.open('swap', {
        ...request,
        ...(file === undefined ? {} : { file: (options.resolvePath ?? join)(folder, file) }),
      }),
  })
  const hostMachine =
    stack.host.devices.length > 0
      ? await HostMachine.create({
          ...stack.host,
          memory: hostMemory,
          backends: options.backends,
          metrics: metrics.scope('host'),
          log,
          resolvePath: options.resolvePath ?? join,
        })
      : undefined
  const thread = new HostThread(0, parts.scheduler, options.pace ?? new EventLoopPace(), metrics.scope('scheduler'))
  const reclaim = new Reclaim(hostMemory, parts.reclaim, metrics.scope('reclaim'), log)
  const vms = new Set<KernelVm>()
  let count = 0
  return {
    stack,
    hostMemory,
    functions: () => hostMachine?.list() ?? [],
    async createVm(vmOptions: VmOptions<ConsoleBackend> = {}) {
      const name = vmOptions.name ?? `vm${count++}`
      const vm = await assembleVm({
        name,
        stack: vmOptions.stack ?? stack,
        parts,
        hostMachine,
        thread,
        hostMemory,
        reclaim,
        log,
        options,
        vmOptions,
      })
      vms.add(vm)
      return vm as never
    },
    samples: () => metrics.samples(),
    async dispose() {
      for (const vm of vms) await vm.dispose()
      vms.clear()
      reclaim.dispose()
      await hostMachine?.dispose()
      await parts.dispose()
    },
  }
}
