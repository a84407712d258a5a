/** Plugins: the only way by which strategies and devices enter a stack, for ours and third parties' alike. */

import type { HostBackends } from '../host/backends.ts'
import type { BootImage, BootProtocol } from '../roles/boot-protocol.ts'
import type { Capability } from './capabilities.ts'
import type { CpuMode } from '../roles/cpu-mode.ts'
import type { Device, DeviceContext } from '../devices/device.ts'
import type { GuestAbi } from '../roles/guest-abi.ts'
import type { GuestFrames } from '../memory/guest-frames.ts'
import type { GuestMemory } from '../memory/guest-memory.ts'
import type { HostMemory } from '../memory/host-memory.ts'
import type { IoModel, IoModelContext } from '../roles/io-model.ts'
import type { Clock } from '../devices/clock.ts'
import type { Log } from '../base/log.ts'
import type { Metrics } from '../base/metrics.ts'
import type { PagingStrategy } from '../roles/paging.ts'
import type { ReclaimPolicy } from '../roles/reclaim.ts'
import type { Scheduler } from '../roles/scheduler.ts'
import type { Schema } from './schema.ts'
import type { SwapBackend, SwapRequest } from '../host/swap.ts'
import type { ThreadBackend } from '../host/threads.ts'

/** Version of these contracts. A plugin for another one is refused before its code is imported. */
export const API_VERSION = 1

/** For strategies that live as long as the host. */
export interface HostContext {
  readonly hostMemory: HostMemory
  readonly metrics: Metrics
  readonly log: Log
  /** Absent: work that could run on another thread runs on the caller's. */
  readonly threads?: ThreadBackend | undefined
  /** Absent, or no data of that name: it is generated when needed. */
  readonly prebuilt?: HostBackends['prebuilt']
  /** Absent: each run compiles guest code anew. */
  readonly openCodeMemory?: HostBackends['openCodeMemory']
  /** Opens the host's back end of that kind; its path is relative to the file that configures the strategy. Absent: the host has none. */
  readonly openSwap?: ((request: SwapRequest) => Promise<SwapBackend>) | undefined
}

/** For strategies that live as long as one VM. */
export interface VmContext extends HostContext {
  readonly guestMemory: GuestMemory
  readonly guestFrames: GuestFrames
  readonly clock: Clock
  readonly vcpuCount: number
}

/** The argument and the result of each role's `create`. A new role is a new line. */
export interface Roles {
  /** One per host. */
  cpu: { context: HostContext; strategy: CpuMode }
  /** One per VM. */
  paging: { context: VmContext; strategy: PagingStrategy }
  /** One per VM; the other roles come with `attach`. */
  abi: { context: VmContext; strategy: GuestAbi }
  /** One per VM and entry of `stack.io`. */
  io: { context: IoModelContext; strategy: IoModel }
  /** One per host and entry of `host.io`: the PCI bus of the host machine, its IOMMU. A device that it is offered to is the host's. */
  host: { context: IoModelContext; strategy: IoModel }
  /** One per host and entry of `stack.reclaim`. */
  reclaim: { context: HostContext; strategy: ReclaimPolicy }
  /** One per boot. */
  boot: { context: HostContext; strategy: BootProtocol }
  /** One per host. */
  scheduler: { context: HostContext; strategy: Scheduler }
}
export type Role = keyof Roles

export const ROLES = ['cpu', 'paging', 'abi', 'io', 'host', 'reclaim', 'boot', 'scheduler'] as const satisfies readonly Role[]

/** An implementation of a role. */
export interface StrategyDefinition<R extends Role = Role, Options = never> {
  readonly role: R
  /** Its name in configurations: `ept`. Unique in its plugin and role. */
  readonly name: string
  /** One line, for `nonroot plugins`. */
  readonly summary: string
  readonly options: Schema<Options>
  /** Capabilities that another part of the stack must give. */
  readonly needs?: readonly Capability[]
  readonly gives?: readonly Capability[]
  /** Kinds of devices: each VM gets one with default options, if it has none of the kind and a package of its stack provides it. */
  readonly brings?: readonly string[]
  /** Capabilities that must not be in the stack. */
  readonly conflicts?: readonly Capability[]
  readonly create: (
    options: Options,
    context: Roles[R]['context'],
  ) => Roles[R]['strategy'] | Promise<Roles[R]['strategy']>
}

/** A boot protocol also declares which of its options are files: the kernel reads them and passes their contents. */
export interface BootDefinition<Options = never> extends StrategyDefinition<'boot', Options> {
  readonly image: (options: Options) => BootImage<string>
}

export interface DeviceDefinition<Options = never> {
  /** Its name in configurations: `virtio-blk`. Unique in a stack. */
  readonly kind: string
  readonly summary: string
  readonly options: Schema<Options>
  readonly needs?: readonly Capability[]
  readonly gives?: readonly Capability[]
  readonly create: (options: Options, context: DeviceContext) => Device | Promise<Device>
}

export type AnyStrategyDefinition = { [R in Role]: R extends 'boot' ? BootDefinition : StrategyDefinition<R> }[Role]

export interface Plugin {
  /** The npm package's name. */
  readonly name: string
  readonly apiVersion: number
  /** Plugins that must be loaded first, by what they provide (`io:pc`, `device:acme-bus`, or a package's name). */
  readonly requires?: readonly string[]
  /** What it provides beside its strategies (`paging:ept`) and devices (`device:acme-sensor`), which are included automatically. */
  readonly provides?: readonly string[]
  readonly strategies?: readonly AnyStrategyDefinition[]
  readonly devices?: readonly DeviceDefinition[]
}

/** The `"nonroot"` field of a plugin's package.json, read before any of its code is imported. */
export interface PluginManifest {
  readonly apiVersion: number
  /** `paging:ept`, `device:acme-sensor`, ... : exactly what the plugin exports. */
  readonly provides: readonly string[]
  /** Of a role with several strategies, the one that a stack means that names none: `io:pc`. */
  readonly defaults?: readonly string[]
}

/** Only typed here; checked at load time. `export default definePlugin({ ... })`. */
export const definePlugin = (plugin: Plugin): Plugin => plugin

/** Erases the options' type after checking it: the kernel passes on only what `options` parsed. */
const erase = <T>(definition: unknown): T => definition as T

export const defineDevice = <Options>(definition: DeviceDefinition<Options>): DeviceDefinition => erase(definition)

type Define<R extends Role> = <Options>(
  definition: Omit<StrategyDefinition<R, Options>, 'role'>,
) => StrategyDefinition<R>

const definer =
  <R extends Role>(role: R): Define<R> =>
  (definition) =>
    erase({ role, ...definition })

export const defineCpuMode: Define<'cpu'> = definer('cpu')
export const definePaging: Define<'paging'> = definer('paging')
export const defineGuestAbi: Define<'abi'> = definer('abi')
export const defineIoModel: Define<'io'> = definer('io')
export const defineHostModel: Define<'host'> = definer('host')
export const defineReclaim: Define<'reclaim'> = definer('reclaim')
export const defineScheduler: Define<'scheduler'> = definer('scheduler')
export const defineBoot = <Options>(definition: Omit<BootDefinition<Options>, 'role'>): BootDefinition =>
  erase({ role: 'boot', ...definition })
