/** A domain's state that is neither its memory nor its events: shared information, clocks, grants, and its vCPUs. */

import { NonrootError } from '@nonroot/contracts'
import type {
  Clock,
  EventMemory,
  GuestAbiVcpu,
  HostMemory,
  Hpa,
  PowerControl,
  TableCalls,
  XenPlatform,
} from '@nonroot/contracts'
import type { DomainFrames } from './frames.ts'
import type { HvmState } from './hvm/state.ts'
import { Mappings } from './grants/mappings.ts'
import { controlAccess } from './grants/access.ts'
import { GrantTable } from './grants/table.ts'
import { GrantUses } from './grants/uses.ts'
import { INFO, SHARED } from './facts.ts'
import { VcpuTimers, writeTimeInfo, writeWallClock } from './time.ts'

export interface DomainVcpu {
  readonly index: number
  /** Undefined until its CPU mode made it. */
  abi: GuestAbiVcpu | undefined
  /** Host address of vcpu_info, and the guest's frame that holds it (0: the shared page). */
  info: Hpa
  infoFrame: number
  readonly timers: VcpuTimers
  initialised: boolean
  /** When it was created, for its run state. */
  since: number
}

export interface DomainParts {
  readonly hostMemory: HostMemory
  readonly clock: Clock
  readonly frames: DomainFrames
  /** Of a paravirtual guest. */
  readonly tables?: TableCalls
  /** Of the others. */
  readonly hvm?: HvmState
  readonly platform: XenPlatform
  readonly power: PowerControl
  readonly vcpuCount: number
}

export class Domain implements EventMemory {
  readonly hostMemory: HostMemory
  readonly view: DataView
  readonly clock: Clock
  readonly frames: DomainFrames
  readonly tables: TableCalls | undefined
  readonly hvm: HvmState | undefined
  readonly platform: XenPlatform
  readonly power: PowerControl
  readonly grants: GrantTable
  readonly grantUses: GrantUses
  readonly mappings = new Mappings()
  sharedInfo: Hpa
  readonly #ownSharedInfo: Hpa
  readonly vcpus: readonly DomainVcpu[]
  assists = 0

  constructor({ hostMemory, clock, frames, tables, hvm, platform, power, vcpuCount }: DomainParts) {
    if (vcpuCount > SHARED.vcpus) {
      throw new NonrootError({
        code: 'config.schema',
        message: `a Xen guest has at most ${SHARED.vcpus} vCPUs here`,
        thing: 'machine.vcpus',
        value: vcpuCount,
        remedy: `set machine.vcpus to ${SHARED.vcpus} or less`,
      })
    }
    this.hostMemory = hostMemory
    this.view = hostMemory.view
    this.clock = clock
    this.frames = frames
    this.tables = tables
    this.hvm = hvm
    this.platform = platform
    this.power = power
    const shared = hostMemory.allocateFrame()
    if (shared === undefined)
      throw new NonrootError({ code: 'host.memory', message: 'host memory has no frame left for shared information' })
    this.sharedInfo = this.#ownSharedInfo = shared
    frames.shareFrame(shared)
    this.grants = new GrantTable(hostMemory, frames)
    this.grantUses = new GrantUses(this.grants, frames)
    this.vcpus = Array.from({ length: vcpuCount }, (_, index) => ({
      index,
      abi: undefined,
      info: (shared + index * SHARED.vcpuInfo) as Hpa,
      infoFrame: 0,
      timers: new VcpuTimers(clock, () => platform.events.raiseVirtual(index, 0)),
      initialised: index === 0,
      since: 0,
    }))
    platform.events.attach(this)
    platform.connectGrants(controlAccess(this.grantUses, frames))
  }

  vcpuInfo(vcpu: number): Hpa {
    return this.vcpus[vcpu]!.info
  }

  /** As a new domain has it. Its frames are populated already. */
  begin(): void {
    this.sharedInfo = this.#ownSharedInfo
    this.hostMemory.bytes.fill(0, this.sharedInfo, this.sharedInfo + 4096)
    this.assists = 0
    this.grants.reset()
    this.grantUses.reset()
    this.mappings.reset()
    for (const vcpu of this.vcpus) {
      vcpu.timers.cancel()
      vcpu.initialised = vcpu.index === 0
      vcpu.infoFrame = 0
      vcpu.since = this.clock.nowNs()
      this.setInfo(vcpu, (this.sharedInfo + vcpu.index * SHARED.vcpuInfo) as Hpa)
      if (this.tables) this.view.setUint8(vcpu.info + INFO.mask, 1)
      writeTimeInfo(this.view, vcpu.info + INFO.time, this.clock)
    }
    // A new vCPU of a paravirtual guest ticks until it says that it does not want to.
    if (this.tables) this.vcpus[0]!.timers.startPeriodic(10_000_000)
    writeWallClock(this.view, this.sharedInfo, this.clock)
  }

  /** Nothing of it runs any more: gives back what it held of its frames. How many grants are then in use: none, unless a count went wrong. */
  end(): number {
    this.platform.end()
    this.sharedInfo = this.#ownSharedInfo
    for (const vcpu of this.vcpus) {
      vcpu.timers.cancel()
      const { infoFrame } = vcpu
      vcpu.infoFrame = 0
      this.setInfo(vcpu, (this.sharedInfo + vcpu.index * SHARED.vcpuInfo) as Hpa)
      if (infoFrame !== 0) this.frames.release(infoFrame)
    }
    for (const { reference, isWritable } of this.mappings.all) this.grantUses.end(reference, isWritable)
    this.mappings.reset()
    this.grants.reset()
    return this.grantUses.count
  }

  setInfo(vcpu: DomainVcpu, at: Hpa): void {
    vcpu.info = at
    vcpu.abi?.pv?.setInfo(at)
  }

  /** Shared information is at another host address from now on. */
  moveSharedInfo(to: Hpa): void {
    this.hostMemory.bytes.copyWithin(to, this.sharedInfo, this.sharedInfo + 4096)
    this.sharedInfo = to
    for (const vcpu of this.vcpus)
      if (vcpu.infoFrame === 0) this.setInfo(vcpu, (to + vcpu.index * SHARED.vcpuInfo) as Hpa)
  }

  dispose(): void {
    for (const vcpu of this.vcpus) vcpu.timers.cancel()
    this.grants.dispose()
    this.hostMemory.freeFrame(this.#ownSharedInfo)
  }
}
