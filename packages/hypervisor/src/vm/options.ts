/** What a hypervisor and its VMs are created with. */

import type { BootImage, ConsoleBackend, HostBackends, HostMemory, Log, Schedulable } from '@nonroot/contracts'
import type { Stack } from '../composition/stack.ts'
import type { Pace } from './pace.ts'
import type { Tracer } from './tracer.ts'

export interface HypervisorOptions {
  /** Files, disks, networks: `createNodeBackends()` of @nonroot/host-node. */
  readonly backends: HostBackends
  readonly log?: Log
  /** Host memory to use instead of one of the configured size. */
  readonly hostMemory?: HostMemory
  /** Resolves a path of the configuration against the folder of the file that contains it. */
  readonly resolvePath?: (folder: string, path: string) => string
  readonly pace?: Pace
}

export interface VmOptions<Console extends ConsoleBackend> {
  readonly name?: string
  /** What differs from the host's stack: another machine, other devices, layers, or boot. Its scheduler and reclaim policies are the host's. Default: the host's stack. */
  readonly stack?: Stack
  /** The machine's console. Default: web streams, `vm.console.output` and `vm.console.input`. */
  readonly console?: Console
  /** Replaces the files that the stack's boot protocol names, or transforms them. */
  readonly image?: BootImage | ((configured: BootImage) => BootImage | Promise<BootImage>)
  /** Its claim on processor time. Default: the stack's `schedule`, or weight 1, no cap, any processor. */
  readonly schedule?: Partial<Omit<Schedulable, 'vm' | 'vcpu'>>
  readonly tracer?: Tracer
  /** What reclaim policies may take of it, in frames, its relative claim, and with whom it may share. Default: the stack's `reclaim`, or all of it, 1000, no sharing between VMs. */
  readonly reclaim?: {
    readonly minimumFrames?: number
    readonly maximumFrames?: number
    readonly shares?: number
    readonly group?: string
  }
}
