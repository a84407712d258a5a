/** Why `Vcpu.run` returned: reasons that are independent of the CPU mode, as between kvm.ko and its user space. */

import type { Gpa } from '../base/address.ts'
import type { IoSize } from '../devices/io-bus.ts'

/**
 * Exits are frequent, so a vCPU has one object of each kind and reuses it: the result of `run` is valid until the next `run` of that vCPU. Copy what
 * you keep.
 *
 * `portIo` and `mmio` are returned only if the `IoBus` deferred the access. To complete a read, store the answer in `data` (and `dataHigh`) before
 * the next `run`, which finishes the instruction.
 */
export type VcpuExit =
  PortIoExit | MmioExit | HypercallExit | HaltExit | MemoryExit | ShutdownExit | BudgetExit | FailureExit

export type VcpuExitReason = VcpuExit['reason']

export interface PortIoExit {
  readonly reason: 'portIo'
  write: boolean
  port: number
  size: IoSize
  /** Unsigned. Write: the guest's value. Read: filled by the caller. */
  data: number
}

export interface MmioExit {
  readonly reason: 'mmio'
  write: boolean
  address: Gpa
  size: IoSize | 8
  /** Bits 31:0, unsigned. */
  data: number
  /** Bits 63:32, for size 8. */
  dataHigh: number
}

/** A hypercall that the guest ABI left to the VM (`HypercallResult` `exit`). The result register is set by `completeHypercall`. */
export interface HypercallExit {
  readonly reason: 'hypercall'
  number: bigint
  /** In the ABI's order; unused ones are 0. */
  readonly arguments: bigint[]
}

/** HLT (or MWAIT) with no event pending: sleep until `InterruptSink.wake` or the clock's next deadline. */
export interface HaltExit {
  readonly reason: 'halt'
}

/**
 * The vCPU's next instruction needs a page that has no frame now. Run the vCPU again when `GuestFrames.ready(address)` resolves; earlier it exits
 * again. Other vCPUs may run meanwhile.
 */
export interface MemoryExit {
  readonly reason: 'memory'
  address: Gpa
}

/** Triple fault: the processor stopped. The machine resets or ends, by configuration. */
export interface ShutdownExit {
  readonly reason: 'shutdown'
}

/** The budget is used up, or the vCPU was kicked. */
export interface BudgetExit {
  readonly reason: 'budget'
}

/** The CPU mode cannot go on (failed VM entry, internal limit). Ends this VM with the message. */
export interface FailureExit {
  readonly reason: 'failure'
  /** One sentence that names the check or limit. */
  message: string
  rip: bigint
}
