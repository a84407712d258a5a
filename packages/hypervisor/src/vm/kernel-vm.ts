/** Runs a VM that has been assembled: its run loop, resets, and what its operator asks of it. */

import { Balloon, FRAME_SIZE, NetworkCable, NonrootError } from '@nonroot/contracts'
import type {
  BootState,
  ConsoleBackend,
  KickAddress,
  Log,
  MemoryUse,
  Metrics,
  MetricSample,
  ReclaimedMemory,
  Schedulable,
  Token,
  Vcpu,
  VmEnd,
} from '@nonroot/contracts'
import type { KernelIoBus, DeviceContexts } from '../bus/index.ts'
import type { VmParts } from '../composition/compose.ts'
import type { DemandGuestMemory } from '../memory/guest-memory.ts'
import type { KernelClock } from '../time/clock.ts'
import type { PowerSwitch } from './power.ts'
import { RunLoop } from './run-loop.ts'
import type { HostThread } from './host-thread.ts'
import type { TimedDisks } from './timed-disks.ts'
import { traceInterrupts } from './traced-parts.ts'
import type { Tracer } from './tracer.ts'
import type { Vm, VmEvent, VmInfo, VmState } from './vm.ts'

export interface VmAssembly {
  readonly name: string
  readonly console: ConsoleBackend
  readonly metrics: Metrics
  readonly log: Log
  readonly guestMemory: DemandGuestMemory
  readonly clock: KernelClock
  readonly bus: KernelIoBus
  readonly platform: DeviceContexts
  readonly power: PowerSwitch
  readonly parts: VmParts
  readonly vcpus: readonly Vcpu[]
  /** The guest's initial state. Its memory is already in place, or will be before it runs. */
  readonly booted: BootState
  /** The same after a reset. */
  readonly boot: () => Promise<BootState>
  readonly onReset: 'restart' | 'end'
  /** Who runs it, and its claim on processor time. */
  readonly host: HostThread
  readonly claim: Omit<Schedulable, 'vcpu'>
  readonly tracer: Tracer | undefined
  /** Under a deterministic clock. */
  readonly timedDisks: TimedDisks | undefined
  /** What reclaim policies have to do with it. */
  readonly reclaim: VmReclaim
  readonly dispose: () => void
}

/** A VM's side of the host's reclaim policies. */
export interface VmReclaim {
  readonly minimumFrames: number
  readonly shares: number
  reclaimed(): readonly ReclaimedMemory[]
  /** False: no policy asks the guest. */
  requestTarget(frames: number | undefined): boolean
  /** The policies have nothing more to do with the VM. */
  retire(): void
}

export class KernelVm implements Vm {
  readonly name: string
  readonly console: ConsoleBackend
  readonly metrics: Metrics
  readonly #assembly: VmAssembly
  readonly #loop: RunLoop
  #placed: BootState['placed'] = []
  readonly #watchers = new Set<(event: VmEvent) => void>()
  #isResetRequested = false
  #state: VmState = 'created'
  #disposed: Promise<void> | undefined

  /** Sets the guest's first registers for the boot protocol. */
  constructor(assembly: VmAssembly) {
    this.#assembly = assembly
    this.name = assembly.name
    this.console = assembly.console
    this.metrics = assembly.metrics
    const { abi } = assembly.parts
    this.#loop = new RunLoop({
      vcpus: assembly.vcpus,
      clock: assembly.clock,
      io: assembly.bus,
      frames: assembly.guestMemory,
      power: assembly.power,
      host: assembly.host,
      claim: assembly.claim,
      accountSteal: abi.accountSteal ? (vcpu, ns) => abi.accountSteal!(vcpu, ns) : undefined,
      metrics: assembly.metrics.scope('vm'),
      tracer: assembly.tracer,
      onEntry: abi.onEntry ? (vcpu) => abi.onEntry!(vcpu) : undefined,
      quiesce: () => this.#quiesce(),
      reset: () => this.#resetMachine(),
    })
    const { interrupts } = assembly.platform
    const span = assembly.tracer?.span?.bind(assembly.tracer)
    interrupts.attach(span ? traceInterrupts(interrupts, this.#loop, span) : this.#loop)
    for (const balloon of this.#offered(Balloon))
      balloon.onChange(() => {
        const given = this.#offered(Balloon).reduce((frames, { actualFrames }) => frames + actualFrames, 0)
        this.#tell({ kind: 'balloon', remainingBytes: assembly.guestMemory.size - given * FRAME_SIZE })
      })
    assembly.tracer?.attach?.({ vcpus: assembly.vcpus, guestMemory: assembly.guestMemory })
    this.#start(assembly.booted)
  }

  get kickAddresses(): readonly KickAddress[] {
    return this.#assembly.vcpus.map(({ kickAddress }) => kickAddress)
  }

  get state(): VmState {
    return this.#state === 'running' && this.#loop.paused ? 'paused' : this.#state
  }

  async run(): Promise<VmEnd> {
    if (this.#state !== 'created') {
      throw new NonrootError({
        code: 'usage',
        message: `VM ${this.name} is ${this.#state}; it runs once`,
        thing: this.name,
        remedy: 'create another one',
      })
    }
    this.#state = 'running'
    try {
      return await this.#loop.run()
    } catch (error) {
      return this.#failed(error)
    } finally {
      this.#state = 'ended'
      this.#assembly.parts.abi.ended?.()
      await this.console.drain?.()
    }
  }

  /** An error of ours ends that VM, with a message that says where. */
  #failed(error: unknown): VmEnd {
    const { bus, log, power, vcpus } = this.#assembly
    // Errors after the VM was asked to end are consequences of it.
    if (power.end?.state === 'crashed') return power.end
    const message = error instanceof Error ? error.message : String(error)
    log.debug(() => (error instanceof Error && error.stack) || message)
    const expected = error instanceof NonrootError && error.code !== 'internal'
    const where = bus.currentOwner === undefined || expected ? '' : ` (the last device asked was ${bus.currentOwner})`
    const reason = expected ? message : `a part of the hypervisor failed: ${message}${where}`
    try {
      return { state: 'crashed', reason, vcpu: 0, rip: vcpus[0]!.readState().rip }
    } catch {
      return { state: 'crashed', reason }
    }
  }

  #start(state: BootState): void {
    this.#placed = state.placed
    this.#assembly.vcpus.forEach((vcpu, index) =>
      vcpu.writeState(index === 0 ? state.registers : { activity: 'waitForStartup' }),
    )
  }

  async #resetMachine(): Promise<VmEnd | undefined> {
    const { onReset, parts, platform, vcpus, log, boot } = this.#assembly
    if (onReset === 'end') return { state: 'poweredOff' }
    log.info('machine reset')
    this.#tell({ kind: 'reset', guest: !this.#isResetRequested })
    this.#isResetRequested = false
    for (const model of parts.io) {
      for (const device of model.devices?.values() ?? []) device.reset?.()
      model.reset?.()
    }
    for (const device of parts.devices.values()) device.reset?.()
    platform.interrupts.reset()
    parts.abi.reset()
    for (const vcpu of vcpus) vcpu.reset('powerUp')
    this.#start(await boot())
    return undefined
  }

  async #quiesce(): Promise<void> {
    const { parts, timedDisks } = this.#assembly
    const all = [...parts.io.flatMap((model) => [...(model.devices?.values() ?? [])]), ...parts.devices.values()]
    const quiesce = async (): Promise<void> => {
      for (const device of all) await device.quiesce?.()
    }
    await (timedDisks ? timedDisks.hurry(quiesce) : quiesce())
  }

  watch(listener: (event: VmEvent) => void): () => void {
    this.#watchers.add(listener)
    return () => void this.#watchers.delete(listener)
  }
  #tell(event: VmEvent): void {
    for (const listener of this.#watchers) listener(event)
  }

  pause(): void {
    if (this.#loop.paused) return
    this.#loop.pause()
    this.#tell({ kind: 'paused' })
  }

  resume(): void {
    if (!this.#loop.paused) return
    this.#loop.resume()
    this.#tell({ kind: 'resumed' })
  }

  stop(): void {
    this.#assembly.power.finish({ state: 'stopped' })
    if (this.#loop.paused) this.#loop.resume()
  }

  powerButton(): boolean {
    this.#tell({ kind: 'powerButton' })
    return this.#assembly.power.pressButton()
  }

  reset(): void {
    this.#isResetRequested = true
    this.#assembly.power.reset()
  }

  plug(on: boolean, device?: string): number {
    let found = 0
    for (const [name, { offers }] of this.#assembly.parts.devices) {
      const cable = offers?.get(NetworkCable) as NetworkCable | undefined
      if (!cable || (device !== undefined && device !== name)) continue
      cable.plug(on)
      found++
    }
    return found
  }

  /** Requests the run loop's attention from outside the guest. */
  nudge(): void {
    this.#loop.nudge()
  }

  /** Guest code does not run before this has settled. */
  hold(until: Promise<unknown>): void {
    this.#loop.hold(until)
  }

  info(): VmInfo {
    const { clock, guestMemory, vcpus, parts } = this.#assembly
    return {
      name: this.name,
      state: this.state,
      clock: clock.kind,
      guestNs: clock.nowNs(),
      memory: { size: guestMemory.size, residentFrames: guestMemory.residentFrames },
      vcpus: vcpus.map((vcpu) => {
        const { rip, activity } = vcpu.readState()
        const { instructionsRetired: instructions, firstInstructionAt } = vcpu
        return { rip, activity, instructions, ...(firstInstructionAt === undefined ? {} : { firstInstructionAt }) }
      }),
      devices: [...parts.io.flatMap((model) => [...(model.devices?.keys() ?? [])]), ...parts.devices.keys()],
      placed: this.#placed,
    }
  }

  memory(): MemoryUse {
    const { guestMemory, reclaim } = this.#assembly
    const balloons = this.#offered(Balloon)
    const maximumFrames = guestMemory.size / FRAME_SIZE
    const sum = (of: 'actualFrames' | 'targetFrames'): number =>
      balloons.reduce((frames, balloon) => frames + balloon[of], 0)
    return {
      ...guestMemory.usage(),
      hasBalloon: balloons.length > 0,
      maximumFrames,
      minimumFrames: reclaim.minimumFrames,
      shares: reclaim.shares,
      balloonedFrames: sum('actualFrames'),
      targetFrames: maximumFrames - sum('targetFrames'),
      techniques: reclaim.reclaimed(),
    }
  }

  requestMemory(frames: number): boolean {
    const { guestMemory, reclaim } = this.#assembly
    const most = guestMemory.size / FRAME_SIZE
    const wanted = Math.min(Math.max(frames, reclaim.minimumFrames), most)
    if (reclaim.requestTarget(wanted === most ? undefined : wanted)) return true
    const [balloon] = this.#offered(Balloon)
    balloon?.setTarget(most - wanted)
    return balloon !== undefined
  }

  /** What the VM's devices offer by that token. */
  #offered<T>(token: Token<T>): T[] {
    const { io, devices } = this.#assembly.parts
    const all = [...io.flatMap((model) => [...(model.devices?.values() ?? [])]), ...devices.values()]
    return all.map(({ offers }) => offers?.get(token) as T | undefined).filter((offer) => offer !== undefined)
  }

  samples(): MetricSample[] {
    const { metrics, vcpus, guestMemory, clock } = this.#assembly
    const vm = metrics.scope('vm')
    vm.gauge('guestNs', 'guest time', 'ns').value = clock.nowNs()
    vm.gauge('residentFrames', 'frames of guest memory that hold something', 'frames').value =
      guestMemory.residentFrames
    for (const vcpu of vcpus) {
      vcpu.sampleMetrics?.()
      metrics.scope(`vcpu${vcpu.index}`).gauge('instructions', 'instructions retired', 'instructions').value =
        vcpu.instructionsRetired
    }
    return metrics.samples()
  }

  /** Ends it, if it runs. Once, however often it is called. */
  dispose(): Promise<void> {
    return (this.#disposed ??= this.#dispose())
  }
  async #dispose(): Promise<void> {
    this.#loop.end()
    this.#state = 'ended'
    const { parts, vcpus, reclaim, dispose } = this.#assembly
    reclaim.retire()
    await this.#quiesce()
    for (const model of parts.io) for (const device of model.devices?.values() ?? []) await device.dispose?.()
    for (const vcpu of vcpus) vcpu.dispose()
    await parts.dispose()
    dispose()
  }
}
