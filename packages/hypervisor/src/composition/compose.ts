/** Composes a stack with an inversify container. Only this file uses the container; code that runs guests never sees it. */

import {
  BootProtocol,
  Clock,
  CpuMode,
  Device,
  GuestAbi,
  GuestFrames,
  GuestMemory,
  HostMemory,
  IoModel,
  Log,
  Metrics,
  NonrootError,
  PagingStrategy,
  ReclaimPolicy,
  Scheduler,
} from '@nonroot/contracts'
import type {
  ErrorCode,
  DeviceContext,
  HostContext,
  IoModelContext,
  Role,
  Roles,
  SwapBackend,
  SwapRequest,
  Token,
  VmContext,
} from '@nonroot/contracts'
import { Container, ContainerModule } from 'inversify'
import { RoundRobin } from '../scheduling/round-robin.ts'
import { messageOf } from './plugin-load.ts'
import type { DeviceLayer, Stack, StrategyLayer } from './stack.ts'

/** What the kernel provides to strategies that live as long as the host. */
export interface HostServices extends Omit<HostContext, 'openSwap'> {
  /** `HostContext.openSwap` for paths relative to `folder`. */
  readonly openSwap?: (request: SwapRequest, folder: string) => Promise<SwapBackend>
}

/** What the kernel provides for one VM. Contexts are created per layer, so that claims, metrics and errors have its name. */
export interface VmServices {
  readonly guestMemory: GuestMemory
  readonly guestFrames: GuestFrames
  readonly clock: Clock
  readonly vcpuCount: number
  readonly metrics: Metrics
  readonly log: Log
  ioContext(layer: StrategyLayer<'io'>): IoModelContext
  deviceContext(layer: DeviceLayer): DeviceContext
  /** Called when an I/O model was created: devices created later may use what it offers. */
  onIoModel?(model: IoModel, layer: StrategyLayer<'io'>): void
}

/** The strategies of a host. */
export interface HostParts {
  /** The CPU mode that a VM's stack names. VMs with the same package and options share one. */
  cpuOf(stack: Stack): Promise<CpuMode>
  readonly reclaim: readonly ReclaimPolicy[]
  /** Without one in the stack: round robin. */
  readonly scheduler: Scheduler
  /** Creates the strategies and devices of a VM of that stack. */
  createVmParts(stack: Stack, services: VmServices): Promise<VmParts>
  dispose(): Promise<void>
}

/** The strategies and devices of a VM. */
export interface VmParts {
  readonly paging: PagingStrategy
  readonly abi: GuestAbi
  readonly io: readonly IoModel[]
  readonly boot: BootProtocol | undefined
  /** By name, in order of the configuration. */
  readonly devices: ReadonlyMap<string, Device>
  dispose(): Promise<void>
}

const TOKENS: { readonly [R in Role]: Token<Roles[R]['strategy']> } = {
  cpu: CpuMode,
  paging: PagingStrategy,
  abi: GuestAbi,
  io: IoModel,
  host: IoModel,
  reclaim: ReclaimPolicy,
  boot: BootProtocol,
  scheduler: Scheduler,
}

interface Disposable {
  dispose?(): unknown
}

export async function composeHost(stack: Stack, services: HostServices): Promise<HostParts> {
  const container = new Container({ defaultScope: 'Singleton' })
  container.bind(HostMemory).toConstantValue(services.hostMemory)
  container.bind(Metrics).toConstantValue(services.metrics)
  container.bind(Log).toConstantValue(services.log)
  const context =
    ({ role, folder }: StrategyLayer) =>
    (hostMemory: HostMemory, metrics: Metrics, log: Log): HostContext => ({
      hostMemory,
      metrics: metrics.scope(role),
      log,
      threads: services.threads,
      prebuilt: services.prebuilt,
      openCodeMemory: services.openCodeMemory,
      openSwap: services.openSwap && ((request) => services.openSwap!(request, folder)),
    })
  const create = (layers: readonly StrategyLayer[]): Promise<Map<string, unknown>> =>
    bindAll(
      container,
      layers.map((layer) => ({
        token: TOKENS[layer.role],
        thing: layer.thing,
        from: layer,
        module: layerModule(TOKENS[layer.role], layer, context(layer), [HostMemory, Metrics, Log]),
      })),
    )
  const created = await create(stack.layers.filter(({ role }) => ['cpu', 'reclaim', 'scheduler'].includes(role)))
  const modes = new Map([[modeKey(stack), Promise.resolve(created.get(stack.cpu.thing) as CpuMode)]])
  return {
    cpuOf(of) {
      const known = modes.get(modeKey(of))
      if (known) return known
      // Its name must differ from the host's own mode in the container.
      const layer = { ...of.cpu, thing: `${of.cpu.thing} (${modes.size})` }
      const mode = create([layer]).then((parts) => parts.get(layer.thing) as CpuMode)
      modes.set(modeKey(of), mode)
      return mode
    },
    reclaim: stack.reclaim.map((layer) => created.get(layer.thing) as ReclaimPolicy),
    scheduler: stack.scheduler ? (created.get(stack.scheduler.thing) as Scheduler) : new RoundRobin(),
    createVmParts: (of, vm) => composeVm(of, container, vm),
    async dispose() {
      const [, ...more] = await Promise.allSettled(modes.values())
      await disposeAll([...created.values(), ...more.map((one) => one.status === 'fulfilled' && one.value)])
    },
  }
}

/** Equal for VMs that can share a CPU mode. */
const modeKey = ({ cpu }: Stack): string => JSON.stringify([cpu.package.folder, cpu.definition.name, cpu.options])

async function composeVm(stack: Stack, host: Container, services: VmServices): Promise<VmParts> {
  const container = new Container({ parent: host, defaultScope: 'Singleton' })
  container.bind(GuestMemory).toConstantValue(services.guestMemory)
  container.bind(GuestFrames).toConstantValue(services.guestFrames)
  container.bind(Clock).toConstantValue(services.clock)
  const context =
    ({ role }: StrategyLayer) =>
    (hostMemory: HostMemory, guestMemory: GuestMemory, guestFrames: GuestFrames, clock: Clock): VmContext => ({
      hostMemory,
      guestMemory,
      guestFrames,
      clock,
      metrics: services.metrics.scope(role),
      log: services.log,
      vcpuCount: services.vcpuCount,
    })
  const deps = [HostMemory, GuestMemory, GuestFrames, Clock]
  const layers = stack.layers.filter((layer) => ['paging', 'abi', 'io', 'boot'].includes(layer.role))
  const created = await bindAll(container, [
    ...layers.map((layer) => ({
      token: TOKENS[layer.role],
      thing: layer.thing,
      from: layer as StrategyLayer | DeviceLayer,
      module:
        layer.role === 'io'
          ? layerModule(IoModel, layer, () => services.ioContext(layer as unknown as StrategyLayer<'io'>), [])
          : layerModule(TOKENS[layer.role], layer, context(layer), deps),
      then: (part: unknown) => {
        if (layer.role === 'io') services.onIoModel?.(part as IoModel, layer as unknown as StrategyLayer<'io'>)
      },
    })),
    ...stack.devices.map((layer) => ({
      token: Device,
      thing: layer.thing,
      from: layer as StrategyLayer | DeviceLayer,
      module: layerModule(Device, layer, () => services.deviceContext(layer), []),
    })),
  ])
  return {
    paging: created.get(stack.paging.thing) as PagingStrategy,
    abi: created.get(stack.abi.thing) as GuestAbi,
    io: stack.io.map((layer) => created.get(layer.thing) as IoModel),
    boot: stack.boot && (created.get(stack.boot.thing) as BootProtocol),
    devices: new Map(stack.devices.map((layer) => [layer.name, created.get(layer.thing) as Device])),
    dispose: () => disposeAll([...created.values()]),
  }
}

/** One layer as a module: its token is resolved by calling the plugin's `create` with a context from the container. */
function layerModule(
  token: symbol,
  layer: StrategyLayer | DeviceLayer,
  context: (...services: never[]) => unknown,
  deps: readonly symbol[],
): ContainerModule {
  const create = layer.definition.create as (options: unknown, context: unknown) => unknown
  return new ContainerModule(({ bind }) => {
    bind(token)
      .toResolvedValue(
        async (...services: unknown[]) => create(layer.options, context(...(services as never[]))),
        [...deps],
      )
      .inSingletonScope()
      .whenNamed(layer.thing)
  })
}

interface Binding {
  readonly token: symbol
  /** Name of the binding: the layer's path in the configuration. */
  readonly thing: string
  readonly from: StrategyLayer | DeviceLayer
  readonly module: ContainerModule
  readonly then?: (part: unknown) => void
}

/** Binds and creates in order; results are keyed by `thing`. If one fails, those before it are disposed of and their bindings removed. */
async function bindAll(container: Container, bindings: readonly Binding[]): Promise<Map<string, unknown>> {
  const created = new Map<string, unknown>()
  container.snapshot()
  for (const binding of bindings) {
    try {
      await container.loadAsync(binding.module)
      const part: unknown = await container.getAsync(binding.token, { name: binding.thing })
      if (part === null || typeof part !== 'object') {
        throw new Error(`create() gave ${part === undefined ? 'nothing' : String(part)}`)
      }
      created.set(binding.thing, part)
      binding.then?.(part)
    } catch (error) {
      await disposeAll([...created.values()])
      container.restore()
      throw createError(binding.from, error)
    }
  }
  return created
}

export function createError(layer: StrategyLayer | DeviceLayer, error: unknown): NonrootError {
  const isDevice = 'name' in layer
  const cause = causeOf(error)
  const { package: from, thing, location } = layer
  const name = isDevice ? layer.definition.kind : (layer.definition as { name: string }).name
  return new NonrootError({
    code: codeOf(cause) ?? (isDevice ? 'device.create' : 'strategy.create'),
    message: `${thing}: ${from.name}@${from.version} ${name} could not be created: ${messageOf(cause)}`,
    thing,
    location,
    ...(cause instanceof NonrootError && cause.remedy ? { remedy: cause.remedy } : {}),
    cause,
  })
}

/** That a file of the host cannot be had is no fault of the configuration. */
const codeOf = (cause: unknown): ErrorCode | undefined =>
  cause instanceof NonrootError && cause.code.startsWith('host.') ? cause.code : undefined

/** Inversify wraps errors of factories. */
function causeOf(error: unknown): unknown {
  let inner = error
  while (inner instanceof Error && /inversify/i.test(inner.constructor.name) && inner.cause) inner = inner.cause
  return inner
}

async function disposeAll(parts: readonly unknown[]): Promise<void> {
  for (const part of parts.toReversed()) {
    try {
      await (part as Disposable).dispose?.()
    } catch {
      // A part that cannot be disposed of must not keep the others.
    }
  }
}
