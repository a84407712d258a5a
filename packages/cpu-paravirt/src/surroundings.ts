/** The pins and buses of the chip: machine addresses are the host's, ports and devices there are none, CPUID is the policy's. */

import type { CpuidResult, HostMemory, TableCalls, X86VcpuPorts } from '@nonroot/contracts'
import type { ProcessorHost } from '@nonroot/x86'
import { applyPolicy } from './cpuid-policy.ts'

const ONES = 0xffff_ffff
const isHypervisorLeaf = (leaf: number): boolean => leaf >>> 28 === 4

export class Surroundings implements ProcessorHost {
  readonly memory: HostMemory
  readonly tscFrequency: number
  /** A store to a table of the guest's, which the processor may not write: one of four bytes, low half first. */
  onTableRead: ((machine: number, size: number) => number) | undefined
  onTableWrite: ((machine: number, size: number, value: number) => void) | undefined
  readonly #ports: X86VcpuPorts
  readonly #vcpu: number
  readonly #limit: number
  readonly #registers: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 }
  readonly #random = new BigUint64Array(1)
  readonly #randomBytes = new Uint8Array(this.#random.buffer)

  constructor(memory: HostMemory, ports: X86VcpuPorts, vcpu: number, tables: TableCalls) {
    this.memory = memory
    this.#ports = ports
    this.#vcpu = vcpu
    this.#limit = tables.machineFrames * 4096
    this.tscFrequency = ports.clock.tscHz
  }

  /** Tables name only frames that the domain may reach: validation sees to it. */
  hostAddress(physical: number): number {
    return physical < this.#limit ? physical : -1
  }

  // Port instructions trap before they come here.
  readPort(): number {
    return ONES
  }
  writePort(): void {}

  readDevice(physical: number, size: number): number {
    return this.onTableRead?.(physical, size) ?? ONES
  }
  writeDevice(physical: number, size: number, value: number): void {
    this.onTableWrite?.(physical, size, value)
  }

  readTsc(): bigint {
    return this.#ports.clock.tsc()
  }

  readMsr(index: number): bigint | undefined {
    return this.#ports.abi.readMsr(this.#vcpu, index)
  }
  writeMsr(index: number, value: bigint): boolean {
    return this.#ports.abi.writeMsr(this.#vcpu, index, value) ?? false
  }

  cpuid(leaf: number, subleaf: number, result: Uint32Array): void {
    if (isHypervisorLeaf(leaf)) result.fill(0)
    applyPolicy(leaf, subleaf, result)
    if (leaf === 1) result[1] = (result[1]! & 0xff00) | (this.#vcpu << 24) | (1 << 16)
    else if (leaf === 0xb) result[3] = this.#vcpu
    const registers = this.#registers
    registers.eax = result[0]!
    registers.ebx = result[1]!
    registers.ecx = result[2]!
    registers.edx = result[3]!
    this.#ports.abi.cpuid(this.#vcpu, leaf, subleaf, registers)
    result[0] = registers.eax
    result[1] = registers.ebx
    result[2] = registers.ecx
    result[3] = registers.edx
  }

  random64(): bigint {
    this.#ports.entropy.fill(this.#randomBytes)
    return this.#random[0]!
  }

  readTaskPriority(): number {
    return 0
  }
  writeTaskPriority(): void {}
}
