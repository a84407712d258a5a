/** Makes a VM of a stack: its memory, clock, bus, parts and vCPUs, and the image in its memory. */

import { FRAME_SIZE, invariant, NonrootError } from '@nonroot/contracts'
import type {
  BootImage,
  BootMachine,
  BootState,
  ConsoleBackend,
  HostMemory,
  Log,
  ReclaimSubject,
  Token,
  Vcpu,
} from '@nonroot/contracts'
import { DeviceContexts, KernelIoBus } from '../bus/index.ts'
import type { HostParts } from '../composition/compose.ts'
import type { Stack } from '../composition/stack.ts'
import type { HostMachine } from '../host-machine/index.ts'
import { DemandGuestMemory, pcMemoryMap } from '../memory/index.ts'
import type { Reclaim } from '../memory/reclaim.ts'
import { namedLog } from '../metrics/log.ts'
import { createMetrics } from '../metrics/metrics.ts'
import { DeterministicClock, WallClock } from '../time/index.ts'
import type { KernelClock } from '../time/index.ts'
import { createStreamConsole } from './console.ts'
import { createSeededEntropy } from './entropy.ts'
import type { HostThread } from './host-thread.ts'
import { imageFor } from './images.ts'
import { KernelVm } from './kernel-vm.ts'
import type { HypervisorOptions, VmOptions } from './options.ts'
import { join } from './path.ts'
import { PowerSwitch } from './power.ts'
import { boundsOf, subjectOf } from './reclaim-subject.ts'
import { timedConsole } from './timed-console.ts'
import { DiskOrigins } from './disk-origins.ts'
import { TimedDisks } from './timed-disks.ts'
import { TracedBus, vcpuTrack } from './traced-parts.ts'

export interface VmAssembling {
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

/** Creates the VM with its parts, and places its image. If that fails, nothing of it remains. */
export async function assembleVm(given: VmAssembling): Promise<KernelVm> {
  const { name, stack, hostMemory, reclaim, log, options, vmOptions } = given
  const { backends, resolvePath = join } = options
  const { machine } = stack.config
  // Metric names are per VM; a host with several VMs prefixes them with the VM's name.
  const metrics = createMetrics()
  const opened = await imageFor(stack, vmOptions.image, { backends, resolvePath })
  const { image } = opened
  let failure: string | undefined
  let subject: ReclaimSubject | undefined
  const guestMemory = new DemandGuestMemory({
    hostMemory,
    regions: pcMemoryMap(machine.memory, image.firmware?.length, machine.pluggable),
    reserve: reclaim.reserve,
    onShortage: () => reclaim.relieve(subject),
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
  const onDisk =
    stack.reclaim.length > 0 ? new DiskOrigins(hostMemory, guestMemory.size / FRAME_SIZE, () => guestMemory) : undefined
  const disks = onDisk ? onDisk.wrap(backends) : backends
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
    backends: timedDisks ? timedDisks.wrap(disks) : disks,
    resolvePath,
    ...(given.hostMachine ? { assignment: given.hostMachine.assignmentFor(name, guestMemory, bus) } : {}),
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
    const span = vmOptions.tracer?.span?.bind(vmOptions.tracer)
    for (let index = 0; index < machine.vcpus; index++) {
      vcpus.push(
        await cpu.createVcpu(index, {
          paging: parts.paging,
          abi: parts.abi,
          interrupts,
          io: span ? new TracedBus(bus, index, span) : bus,
          hostBus: given.hostMachine?.bus,
          capability,
          clock,
          guestMemory,
          guestFrames: guestMemory,
          entropy,
          metrics: metrics.scope(`vcpu${index}`),
          log,
          ...(span ? { spans: { span: span.bind(undefined, vcpuTrack(index)) } } : {}),
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
    subject = subjectOf(name, guestMemory, parts, clock, bounds, onDisk)
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

/** `stack.io[0]` → `io0`: in the form of device names. */
const nameOf = (thing: string): string => thing.replace(/^.*\./, '').replaceAll(/[^\w-]/g, '')
