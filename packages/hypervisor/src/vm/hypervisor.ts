/** A host with a stack, and its VMs. */

import { join } from './path.ts'
import { FRAME_SIZE, invariant, NonrootError } from '@nonroot/contracts'
import type {
  BootImage,
  BootMachine,
  BootState,
  ConsoleBackend,
  GuestFrames,
  HostBackends,
  HostFunctionInfo,
  HostMemory,
  Log,
  MetricSample,
  ReclaimSubject,
  Schedulable,
  Token,
  Vcpu,
} from '@nonroot/contracts'
import { KernelIoBus, DeviceContexts } from '../bus/index.ts'
import { composeHost } from '../composition/compose.ts'
import type { HostParts, VmParts } from '../composition/compose.ts'
import type { Stack } from '../composition/stack.ts'
import { HostMachine } from '../host-machine/index.ts'
import { createHostMemory, defaultHostSize, DemandGuestMemory, pcMemoryMap } from '../memory/index.ts'
import { Reclaim } from '../memory/reclaim.ts'
import { createLog, namedLog } from '../metrics/log.ts'
import { createMetrics } from '../metrics/metrics.ts'
import { DeterministicClock, WallClock } from '../time/index.ts'
import type { KernelClock } from '../time/index.ts'
import { createStreamConsole } from './console.ts'
import type { StreamConsole } from './console.ts'
import { createSeededEntropy } from './entropy.ts'
import { openedAlready, openImage } from './images.ts'
import type { OpenedImage } from './images.ts'
import { EventLoopPace } from './pace.ts'
import type { Pace } from './pace.ts'
import { HostThread } from './host-thread.ts'
import { PowerSwitch } from './power.ts'
import { timedConsole } from './timed-console.ts'
import { TimedDisks } from './timed-disks.ts'
import type { Tracer } from './tracer.ts'
import { KernelVm } from './vm.ts'
import type { Vm } from './vm.ts'

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

const DEFAULT_SHARES = 1000

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
    options.hostMemory ?? createHostMemory(host.memory ?? defaultHostSize(machine.memory, machine.vcpus))
  const parts = await composeHost(stack, {
    hostMemory,
    metrics: metrics.scope('host'),
    log,
    threads: options.backends.threads,
    prebuilt: options.backends.prebuilt,
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
      const vm = await assemble({
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

interface Assembling {
  readonly name: string
  readonly stack: Stack
  readonly parts: HostParts
  readonly hostMachine: HostMachine | undefined
  readonly thread: HostThread
  readonly hostMemory: HostMemory
  readonly reclaim: Reclaim
  readonly log: Log
  readonly options: HypervisorOptions
  readonly vmOptions: VmOptions<ConsoleBackend>
}

async function assemble(given: Assembling): Promise<KernelVm> {
  const { name, stack, hostMemory, reclaim, log, options, vmOptions } = given
  const { backends, resolvePath = join } = options
  const { machine } = stack.config
  // Metric names are per VM; a host with several VMs prefixes them with the VM's name.
  const metrics = createMetrics()
  const opened = await imageFor(stack, vmOptions.image, backends, resolvePath)
  const { image } = opened
  let failure: string | undefined
  let subject: ReclaimSubject | undefined
  const guestMemory = new DemandGuestMemory({
    hostMemory,
    regions: pcMemoryMap(machine.memory, image.firmware?.length),
    reserve: reclaim.reserve,
    onShortage: () => reclaim.relieve(),
    onFailure: (message) => {
      failure ??= message
      power.crashed(message)
    },
  })
  const bounds = boundsOf(stack, vmOptions.reclaim, guestMemory)
  const clock = machine.clock === 'deterministic' ? new DeterministicClock() : new WallClock()
  const console = vmOptions.console ?? createStreamConsole()
  const bus = new KernelIoBus(metrics.scope('io'))
  let nudge = (): void => {}
  let hold = (_until: Promise<unknown>): void => {}
  const timedDisks = clock.kind === 'deterministic' ? new TimedDisks(clock, (until) => hold(until)) : undefined
  const power = new PowerSwitch(() => nudge())
  const platform = new DeviceContexts({
    bus,
    dma: guestMemory,
    memoryMap: guestMemory,
    frames: guestMemory,
    clock,
    power,
    metrics,
    log: namedLog(log, name),
    vcpuCount: machine.vcpus,
    console: clock.kind === 'deterministic' ? timedConsole(console, clock, () => nudge()) : console,
    backends: timedDisks ? timedDisks.wrap(backends) : backends,
    resolvePath,
    ...(given.hostMachine ? { assignment: given.hostMachine.assignmentFor(name, guestMemory) } : {}),
  })
  const parts = await given.parts.createVmParts(stack, {
    guestMemory,
    guestFrames: guestMemory,
    clock,
    vcpuCount: machine.vcpus,
    metrics,
    log,
    ioContext: (layer) => platform.modelContext(nameOf(layer.thing), layer.folder),
    deviceContext: (layer) => platform.deviceContext(layer.name, layer.folder),
    onIoModel: (model, layer) => platform.addModel(model, layer.thing),
  })
  const vcpus: Vcpu[] = []
  try {
    const cpu = await given.parts.cpuOf(stack)
    guestMemory.setPaging(parts.paging)
    const { interrupts } = platform
    parts.abi.attach({
      ...{ guestMemory, clock, interrupts, vcpuCount: machine.vcpus, power, paging: parts.paging },
      capability: (of) => platform.deviceContext('abi', '').capability(of),
    })
    const forBoot = platform.deviceContext('boot', stack.boot?.folder ?? '')
    const capability = <T>(of: Token<T>): T | undefined => platform.offered(of, forBoot)
    const bootMachine: BootMachine = {
      guestMemory,
      vcpuCount: machine.vcpus,
      get platform() {
        return platform.describe()
      },
      capability,
      paravirtual: parts.abi.paravirtual,
      log,
    }
    const boot = (): BootState => parts.boot!.load(image, bootMachine)
    await reclaim.makeRoom(framesOf(image))
    // Files are read while the vCPUs are created.
    const booted = boot()
    const entropy = clock.kind === 'deterministic' ? createSeededEntropy() : await backends.open('entropy', {})
    for (let index = 0; index < machine.vcpus; index++) {
      vcpus.push(
        await cpu.createVcpu(index, {
          paging: parts.paging,
          abi: parts.abi,
          interrupts,
          io: bus,
          hostBus: given.hostMachine?.bus,
          capability,
          clock,
          guestMemory,
          guestFrames: guestMemory,
          entropy,
          metrics: metrics.scope(`vcpu${index}`),
          log,
        }),
      )
    }
    readInstructions(clock, vcpus)
    const vm = new KernelVm({
      ...{ name, console, metrics, log, guestMemory, clock, bus, platform, power, parts, vcpus, booted },
      boot: async () => {
        const state = boot()
        await opened.settled()
        return state
      },
      host: given.thread,
      claim: { weight: 1, ...stack.config.schedule, ...vmOptions.schedule, vm: name },
      onReset: machine.onReset,
      tracer: vmOptions.tracer,
      timedDisks,
      reclaim: {
        ...bounds,
        reclaimed: () => reclaim.reclaimed(name),
        requestTarget: (frames) => reclaim.requestTarget(name, frames),
        retire: () => subject && reclaim.remove(subject),
      },
      dispose: () => (guestMemory.dispose(), opened.close()),
    })
    subject = subjectOf(name, guestMemory, parts, clock, bounds)
    reclaim.add(subject)
    nudge = () => vm.nudge()
    hold = (until) => vm.hold(until)
    await opened.settled()
    invariant(failure === undefined, 'the image is in memory')
    return vm
  } catch (error) {
    if (subject) reclaim.remove(subject)
    for (const vcpu of vcpus) vcpu.dispose()
    await parts.dispose()
    await opened.settled().catch(() => {})
    guestMemory.dispose()
    opened.close()
    // Earlier refusals were caused by it.
    if (failure !== undefined)
      throw new NonrootError({
        code: 'host.memory',
        message: `${name} cannot start: ${failure}`,
        thing: 'host.memory',
        cause: error,
      })
    throw error
  }
}

/** About so many are written before the guest runs. */
function framesOf({ kernel, initrd, firmware, modules = [] }: BootImage): number {
  const files = [kernel, initrd, firmware, ...modules.map(({ content }) => content)]
  return files.reduce((sum, file) => sum + Math.ceil((file?.length ?? 0) / FRAME_SIZE), 0)
}

type ReclaimBounds = Pick<ReclaimSubject, 'minimumFrames' | 'maximumFrames' | 'shares' | 'group'>

/** What the embedder says, or else the configuration. */
function boundsOf(
  { config }: Stack,
  wanted: VmOptions<never>['reclaim'] = {},
  frames: Pick<GuestFrames, 'size'>,
): ReclaimBounds {
  const { minimum = 0, maximum = frames.size, shares = DEFAULT_SHARES, group } = config.reclaim ?? {}
  return {
    minimumFrames: wanted.minimumFrames ?? minimum / FRAME_SIZE,
    maximumFrames: wanted.maximumFrames ?? Math.min(maximum, frames.size) / FRAME_SIZE,
    shares: wanted.shares ?? shares,
    group: wanted.group ?? group,
  }
}

/** A VM as reclaim policies see it. */
function subjectOf(
  name: string,
  frames: GuestFrames,
  { paging, io, devices }: VmParts,
  clock: KernelClock,
  bounds: ReclaimBounds,
): ReclaimSubject {
  return {
    name,
    frames,
    takeAccessed: (address) => paging.takeAccessed?.(address),
    ...bounds,
    isDeterministic: clock.kind === 'deterministic',
    devices: new Map([...io.flatMap((model) => [...(model.devices ?? [])]), ...devices]),
  }
}

/** A deterministic clock advances with each instruction, not with each slice. */
function readInstructions(clock: KernelClock, vcpus: readonly Vcpu[]): void {
  if (!(clock instanceof DeterministicClock)) return
  const [only] = vcpus
  clock.setSource(
    vcpus.length === 1
      ? () => only!.instructionsRetired
      : () => vcpus.reduce((sum, vcpu) => sum + vcpu.instructionsRetired, 0),
  )
}

async function imageFor(
  stack: Stack,
  image: VmOptions<never>['image'],
  backends: HostBackends,
  resolvePath: (folder: string, path: string) => string,
): Promise<OpenedImage> {
  const { boot } = stack
  if (!boot) {
    throw new NonrootError({
      code: 'stack.missing',
      message: 'the stack has nothing to boot',
      thing: 'boot',
      remedy: 'name a protocol and its files, as in boot: { linux: { kernel: ./vmlinuz, initrd: ./initrd } }',
      location: { file: stack.file },
    })
  }
  if (typeof image === 'object') return openedAlready(image)
  const configured = await openImage(boot.image, { backends, resolvePath, folder: boot.folder })
  if (!image) return configured
  try {
    return { ...configured, image: await image(configured.image) }
  } catch (error) {
    configured.close()
    throw error
  }
}

/** `stack.io[0]` → `io0`: in the form of device names. */
const nameOf = (thing: string): string => thing.replace(/^.*\./, '').replaceAll(/[^\w-]/g, '')
