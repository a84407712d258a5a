/** CPU modes: how guest code runs. VMX exit reasons, traps and translators are private to a CPU mode. */

import type { Clock } from '../devices/clock.ts'
import type { EntropyBackend } from '../host/backends.ts'
import type { HostBus } from '../host/host-bus.ts'
import type { GuestAbi } from './guest-abi.ts'
import type { GuestFrames } from '../memory/guest-frames.ts'
import type { GuestMemory } from '../memory/guest-memory.ts'
import type { InterruptController } from '../devices/interrupts.ts'
import type { IoBus } from '../devices/io-bus.ts'
import type { Metrics } from '../base/metrics.ts'
import type { Log } from '../base/log.ts'
import type { PagingStrategy } from './paging.ts'
import type { Saveable } from '../base/snapshot.ts'
import type { Spans } from '../base/spans.ts'
import { token } from '../base/token.ts'
import type { Token } from '../base/token.ts'
import type { VcpuExit } from './vcpu-exit.ts'
import type { KickAddress } from './vcpu-kick.ts'

/** The roles with which a vCPU handles its own exits. Shared by the vCPUs of a VM. */
export interface VcpuPorts {
  readonly paging: PagingStrategy
  readonly abi: GuestAbi
  readonly interrupts: InterruptController
  readonly io: IoBus
  /** The host's bus, for leaves of hardware tables that lead to `HOST_MMIO`. Absent: the host has no devices. */
  readonly hostBus?: HostBus | undefined
  /** A capability that an I/O model of the stack offers. Undefined: none does. */
  capability<T>(of: Token<T>): T | undefined
  readonly clock: Clock
  readonly guestMemory: GuestMemory
  readonly guestFrames: GuestFrames
  /** RDRAND and RDSEED. */
  readonly entropy: EntropyBackend
  /** The vCPU's own scope. */
  readonly metrics: Metrics
  readonly log: Log
  /** Where the run is traced: what the vCPU does about its exits. */
  readonly spans?: Spans | undefined
}

/** `halted`: until an event. `waitForStartup`: a secondary processor before it is started. `shutdown`: after a triple fault. */
export type ActivityState = 'active' | 'halted' | 'waitForStartup' | 'shutdown'

/** The part of a vCPU's state that the kernel uses, on any architecture. */
export interface VcpuStatus {
  /** Address of the next instruction. */
  readonly rip: bigint
  readonly activity: ActivityState
}

/** Instructions: see `Vcpu.run`. */
export const EXACT_BUDGET = 256

/**
 * A virtual processor. Owned by the thread that runs it: other threads have `kickAddress`, and nothing else of it.
 *
 * Before each entry it takes pending interrupts from the controller. `State`: what its architecture has (`VcpuState` for x86).
 */
export interface Vcpu<State extends VcpuStatus = VcpuStatus> extends Saveable {
  readonly index: number
  /**
   * Runs guest code until an exit that the vCPU's roles cannot handle, for at most about `budget` instructions: compiled code may retire up to
   * EXACT_BUDGET more. Under a deterministic clock a budget of at most EXACT_BUDGET is kept to the instruction. The next call reuses the result. Does
   * not throw for anything a guest does.
   */
  run(budget: number): VcpuExit
  /** Instructions retired since creation. */
  readonly instructionsRetired: number
  /** Start of its first instruction, in milliseconds of its thread's `performance.now()`. Undefined before. */
  readonly firstInstructionAt?: number | undefined
  /** Updates metrics that are not counted as they happen. Called before metrics are read. */
  sampleMetrics?(): void
  /** Makes `run` return `budget` soon. At any time, even from within the run; a kick between two runs ends the next one at once. */
  kick(): void
  /** For `VcpuKick`, by which any thread does the same: in the middle of compiled code, too. */
  readonly kickAddress: KickAddress

  /** The complete state. Costs microseconds. */
  readState(): State
  /** Changes what is given; the rest is unchanged. */
  writeState(patch: Partial<State>): void
  /** State after RESET or INIT. */
  reset(kind: 'powerUp' | 'init'): void

  /** Whether the guest could take an interrupt at this boundary: none masked, held back or being delivered. */
  readonly interruptWindow: boolean
  /** After a `hypercall` exit: sets the guest's result. */
  completeHypercall(result: bigint): void

  /** Guest-virtual to guest-physical by the guest's own tables, without side effects. For debuggers. */
  translate(address: bigint): number | undefined
  dispose(): void
}

/**
 * One per host, created when the hypervisor starts. What its vCPUs may share (made-ahead code, a thread that compiles) is shared; each vCPU has
 * its own cache of decoded and compiled code, and `dispose` of the vCPU gives it back.
 */
export interface CpuMode {
  /** Asynchronous, because a mode may compile modules or open devices. Called once for each vCPU of each VM, in order of index. */
  createVcpu(index: number, ports: VcpuPorts): Vcpu | Promise<Vcpu>
  /** Version and features as the guest sees them, for `stack show`. */
  describe?(): Readonly<Record<string, string>>
  dispose?(): void | Promise<void>
}
export const CpuMode = token<CpuMode>('CpuMode')
