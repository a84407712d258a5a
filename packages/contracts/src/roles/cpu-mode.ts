/** CPU modes: how guest code is run. VMX exit reasons, traps and translators live behind this and cross it never. */

import type { Clock } from '../devices/clock.ts'
import type { EntropyBackend } from '../host/backends.ts'
import type { GuestAbi } from './guest-abi.ts'
import type { GuestFrames } from '../memory/guest-frames.ts'
import type { GuestMemory } from '../memory/guest-memory.ts'
import type { InterruptController } from '../devices/interrupts.ts'
import type { IoBus } from '../devices/io-bus.ts'
import type { Metrics } from '../base/metrics.ts'
import type { Log } from '../base/log.ts'
import type { PagingStrategy } from './paging.ts'
import type { Saveable } from '../base/snapshot.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'
import type { VcpuExit } from './vcpu-exit.ts'

/** The roles that a vCPU settles its own exits with. One VM's; shared by its vCPUs. */
export interface VcpuPorts {
  readonly paging: PagingStrategy
  readonly abi: GuestAbi
  readonly interrupts: InterruptController
  readonly io: IoBus
  /** A capability that an I/O model of the stack offers. Undefined: none does. */
  capability<T>(of: Token<T>): T | undefined
  readonly clock: Clock
  readonly guestMemory: GuestMemory
  readonly guestFrames: GuestFrames
  /** RDRAND and RDSEED. */
  readonly entropy: EntropyBackend
  /** A scope of the vCPU's own. */
  readonly metrics: Metrics
  readonly log: Log
}

/** `halted`: until an event. `waitForStartup`: a secondary processor before it is started. `shutdown`: after a triple fault. */
export type ActivityState = 'active' | 'halted' | 'waitForStartup' | 'shutdown'

/** What the state of a vCPU of any architecture tells the kernel. */
export interface VcpuStatus {
  /** Address of the next instruction. */
  readonly rip: bigint
  readonly activity: ActivityState
}

/**
 * A virtual processor. Owned by the thread that runs it; only `kick` may be called from elsewhere.
 *
 * Before each entry it takes interrupts from the controller by itself. `State`: what its architecture has (`VcpuState` for x86).
 */
export interface Vcpu<State extends VcpuStatus = VcpuStatus> extends Saveable {
  readonly index: number
  /**
   * Run guest code until something happens that the vCPU's roles cannot settle, at most about `budget` instructions (a
   * region in progress may finish). The result is reused by the next call. Does not throw for anything a guest does.
   */
  run(budget: number): VcpuExit
  /** Instructions retired since creation. */
  readonly instructionsRetired: number
  /** When its first instruction was about to begin: milliseconds of its thread's `performance.now()`. Undefined before. */
  readonly firstInstructionAt?: number | undefined
  /** Brings metrics up to date that are not counted as they happen: about to be read. */
  sampleMetrics?(): void
  /** Make `run` return `budget` soon. From any thread, any time; a kick between two runs ends the next one at once. */
  kick(): void

  /** All of the state. Costs microseconds. */
  readState(): State
  /** Change what is given, leave the rest. */
  writeState(patch: Partial<State>): void
  /** State after RESET or INIT. */
  reset(kind: 'powerUp' | 'init'): void

  /** Whether the guest could take an interrupt at this boundary: none masked, held back or being delivered. */
  readonly interruptWindow: boolean
  /** After a `hypercall` exit: the guest's result. */
  completeHypercall(result: bigint): void

  /** Guest-virtual to guest-physical by the guest's own tables, without side effects. For debuggers. */
  translate(address: bigint): number | undefined
  dispose(): void
}

/**
 * One per host: code caches are keyed by host-physical page, so VMs share them. Created when the hypervisor starts.
 */
export interface CpuMode {
  /** `await` because a mode may compile modules or open devices first. Called once per VM and vCPU, in order of index. */
  createVcpu(index: number, ports: VcpuPorts): Vcpu | Promise<Vcpu>
  /** Version and features as the guest will see them, for `stack show`. */
  describe?(): Readonly<Record<string, string>>
  dispose?(): void | Promise<void>
}
export const CpuMode = token<CpuMode>('CpuMode')
