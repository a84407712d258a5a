/** The exits that leave the vCPU: those that the VM's roles do not handle. One object of each kind, reused. */

import type { Gpa, VcpuExit } from '@nonroot/contracts'
import { gpr, RAX, RBX, RDI, RDX, RSI, RCX, S } from '@nonroot/x86'
import type { Core } from '@nonroot/x86'
import type { Deferred } from './bus.ts'

/** Argument registers of hypercalls. (Linux, "kvm_hypercall") */
const HYPERCALL_ARGUMENTS = [RBX, RCX, RDX, RSI, RDI]

export class NeutralExits {
  readonly budget = { reason: 'budget' as const }
  readonly halt = { reason: 'halt' as const }
  readonly shutdown = { reason: 'shutdown' as const }
  private readonly memoryExit = { reason: 'memory' as const, address: 0 as Gpa }
  private readonly failureExit = { reason: 'failure' as const, message: '', rip: 0n }
  private readonly hypercallExit = { reason: 'hypercall' as const, number: 0n, arguments: [0n, 0n, 0n, 0n, 0n] }
  private readonly portExit = { reason: 'portIo' as const, write: false, port: 0, size: 1 as 1 | 2 | 4, data: 0 }
  private readonly mmioExit = {
    reason: 'mmio' as const,
    write: false,
    address: 0 as never,
    size: 1 as 1 | 2 | 4 | 8,
    data: 0,
    dataHigh: 0,
  }

  failure(core: Core, message: string): VcpuExit {
    this.failureExit.message = message
    this.failureExit.rip = core.get64(S.rip)
    return this.failureExit
  }

  memory(address: Gpa): VcpuExit {
    this.memoryExit.address = address
    return this.memoryExit
  }

  hypercall(core: Core): VcpuExit {
    const { hypercallExit } = this
    hypercallExit.number = core.register(RAX)
    HYPERCALL_ARGUMENTS.forEach((register, i) => (hypercallExit.arguments[i] = core.get64(gpr(register))))
    return hypercallExit
  }

  /** An access that its device deferred. The caller of `run` completes it. */
  deferred({ kind, write, address, size, value }: Deferred): VcpuExit {
    if (kind === 'portIo') {
      return Object.assign(this.portExit, { write, port: address, size: size as 1 | 2 | 4, data: value })
    }
    return Object.assign(this.mmioExit, {
      write,
      address: address as never,
      size: size as 1 | 2 | 4,
      data: value,
      dataHigh: 0,
    })
  }
  /** The answer that the caller put into the exit. */
  answer({ kind }: Deferred): number {
    return kind === 'portIo' ? this.portExit.data : this.mmioExit.data
  }
}
