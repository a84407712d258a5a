/** A virtual machine as its operator sees it: created, run once, disposed. */

import type {
  BootState,
  ConsoleBackend,
  KickAddress,
  MemoryUse,
  Metrics,
  MetricSample,
  VmEnd,
} from '@nonroot/contracts'

/** The state of a VM. `created` → `running` ⇄ `paused` → `ended`. */
export type VmState = 'created' | 'running' | 'paused' | 'ended'

export interface VcpuInfo {
  readonly rip: bigint
  readonly activity: string
  readonly instructions: number
  /** `Vcpu.firstInstructionAt`. */
  readonly firstInstructionAt?: number
}

export interface VmInfo {
  readonly name: string
  readonly state: VmState
  readonly clock: 'wall' | 'deterministic'
  readonly guestNs: number
  readonly memory: { readonly size: number; readonly residentFrames: number }
  readonly vcpus: readonly VcpuInfo[]
  readonly devices: readonly string[]
  /** What the boot protocol placed where. */
  readonly placed: BootState['placed']
}

/** What happens to a VM while it runs, for its operator. */
export type VmEvent =
  | { readonly kind: 'paused' | 'resumed' | 'powerButton' }
  /** `guest`: it asked for it, or had a triple fault. */
  | { readonly kind: 'reset'; readonly guest: boolean }
  /** RAM less what the guest has given to balloons. */
  | { readonly kind: 'balloon'; readonly remainingBytes: number }

export interface Vm {
  readonly name: string
  readonly state: VmState
  readonly console: ConsoleBackend
  readonly metrics: Metrics
  /** For other threads that end a run of a vCPU, by its index. */
  readonly kickAddresses: readonly KickAddress[]
  /** Runs the guest until it ends. Can be called once. Nothing that a guest does rejects it. */
  run(): Promise<VmEnd>
  /** Stops the guest and its time. */
  pause(): void
  resume(): void
  /** Ends the VM from outside. */
  stop(): void
  /** Requests that the guest shuts down. False: it has no listener. */
  powerButton(): boolean
  reset(): void
  /** Plug or pull the cables of all network cards, or of the device of that name; the guest sees its link go up or down. Gives how many there are. */
  plug(on: boolean, device?: string): number
  info(): VmInfo
  /** Calls the listener at each event. Call the result to stop. */
  watch(listener: (event: VmEvent) => void): () => void
  /** Who has what of its memory. */
  memory(): MemoryUse
  /** Asks the guest to manage with so many frames, between its minimum and what the machine has. False: it has no balloon to ask by. */
  requestMemory(frames: number): boolean
  /** Current values of all metrics. */
  samples(): MetricSample[]
  dispose(): Promise<void>
}
