/** Reclaim: taking frames back from guests by ballooning, sharing or swapping. */

import type { Gpa, Hpa } from '../base/address.ts'
import type { Device } from '../devices/device.ts'
import type { FrameFiller, FrameUsage, GuestFrames } from '../memory/guest-frames.ts'
import type { HostMemory } from '../memory/host-memory.ts'
import type { Metrics } from '../base/metrics.ts'
import { token } from '../base/token.ts'

/** Keeps pages that are as they were read from a disk, by noting where that is. */
export interface DiskPages extends Required<FrameFiller> {
  /** Whether what is in the frame was read from a disk, and may still be the same. */
  mayKeep(frame: Hpa): boolean
}

/** One VM as a policy sees it. Sizes are in frames. */
export interface ReclaimSubject {
  readonly name: string
  /** Where pages are parked (swapping), shared, and released. */
  readonly frames: GuestFrames
  /** Whether the page was accessed since the last call; forgets it. Undefined: it is not mapped, or the VM's paging strategy cannot tell. */
  takeAccessed(address: Gpa): boolean | undefined
  /** Reclaim never goes below this. */
  readonly minimumFrames: number
  readonly maximumFrames: number
  /** Relative claim to memory under pressure. */
  readonly shares: number
  /** VMs of one group may share frames with the same content. Absent: none with other VMs, since who shares can find out by the time that a write takes. */
  readonly group?: string | undefined
  /** What its guest can observe must not depend on memory pressure: no balloon is inflated. */
  readonly isDeterministic: boolean
  /** Keeps pages that are as they were read from a disk of the VM, without their content, and declines others. Absent: there is no such disk, or no telling. */
  readonly onDisk?: DiskPages | undefined
  /** The VM's devices by name: a balloon policy uses its balloon. */
  readonly devices: ReadonlyMap<string, Device>
}

export interface ReclaimPressure {
  /** What is to come back at least. 0: there is no hurry. */
  readonly wantedFrames: number
  readonly freeFrames: number
  readonly totalFrames: number
  /** Of the free ones, those that only devices and page tables may take: a guest's touch waits below it. */
  readonly reservedFrames: number
}

/** What was reclaimed, and why not more. */
export interface ReclaimReport {
  readonly reclaimedFrames: number
  readonly reason?: string
}

/** What one technique of a policy has taken from a VM at present. */
export interface ReclaimedMemory {
  /** `balloon`, `share`, `swap`, ... Policies that use the same name are added up. */
  readonly technique: string
  /** Frames that the VM would have if the technique were not used. */
  readonly frames: number
}

/** Who has what of one VM's memory, for its operator. In frames. */
export interface MemoryUse extends FrameUsage {
  /** RAM that the machine has. */
  readonly maximumFrames: number
  /** Reclaim never goes below this. */
  readonly minimumFrames: number
  readonly shares: number
  /** The machine has a balloon; whether its guest drives it shows when it follows. */
  readonly hasBalloon: boolean
  /** Given to balloons, as the guest says. */
  readonly balloonedFrames: number
  /** What the VM was last asked to manage with: `maximumFrames` less the targets of its balloons. */
  readonly targetFrames: number
  readonly techniques: readonly ReclaimedMemory[]
}

/** How often policies are asked to `sample`: milliseconds of the host's time. */
export const RECLAIM_PERIOD_MS = 100
/** How long a policy may take to answer `onPressure`; it is passed over then. Milliseconds. */
export const RECLAIM_PATIENCE_MS = 30_000

/**
 * One per host and entry of `stack.reclaim`. They are called in order until enough is free. All of it is called on the host's thread, with no vCPU
 * inside `Vcpu.run`, so that it may change frames as it likes. What a policy throws is logged, and the policy is passed over.
 */
export interface ReclaimPolicy {
  /** Once, before anything else. */
  attach(host: HostMemory, metrics: Metrics): void
  /** A VM was created or removed. */
  addSubject(subject: ReclaimSubject): void
  /** Its frames are about to be freed. What is parked is dropped, by the fillers' `drop`. */
  removeSubject(subject: ReclaimSubject): void
  /** Frames are short, and a vCPU may be waiting for one. May take time (a balloon waits for its guest); other vCPUs and VMs go on meanwhile. */
  onPressure(pressure: ReclaimPressure): Promise<ReclaimReport>
  /** Every `RECLAIM_PERIOD_MS`: look at use, merge pages, age, and give back before there is a shortage. Bounded: at most about a millisecond. */
  sample?(pressure: ReclaimPressure, nowNs: number): void
  /** What each technique has taken from the VM of that name at present. */
  reclaimed?(vm: string): readonly ReclaimedMemory[]
  /**
   * The operator asks that the VM manages with so many frames; undefined withdraws the request. False: this policy cannot ask its guest, and the kernel
   * asks the VM's balloon itself, or refuses if it has none.
   */
  requestTarget?(vm: string, frames: number | undefined): boolean
  dispose?(): void
}
export const ReclaimPolicy = token<ReclaimPolicy>('ReclaimPolicy')
