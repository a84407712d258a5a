/** @hot The processor's bus, connected to the VM's roles: ports, MMIO, MSRs, CPUID, time, random bits. */

import { IO_DEFERRED, NumericErrors } from '@nonroot/contracts'
import type { CpuidResult, Gpa, HostMemory, IoSize, X86VcpuPorts } from '@nonroot/contracts'
import { GuestFault, HOST_BUS_BASE, STALLED } from '@nonroot/x86'
import type { ProcessorHost } from '@nonroot/x86'
import type { Siblings } from './siblings.ts'

/** An access that its device deferred. The instruction runs again when the answer is there. */
export interface Deferred {
  readonly kind: 'portIo' | 'mmio'
  readonly write: boolean
  readonly address: number
  readonly size: number
  readonly value: number
}

/** CPUID leaves reserved for hypervisors. */
const isHypervisorLeaf = (leaf: number): boolean => leaf >>> 28 === 4

export class ProcessorBus implements ProcessorHost {
  readonly memory: HostMemory
  readonly tscFrequency: number
  /** Called after anything that may have made an interrupt pending. */
  onAccess: () => void = () => {}
  /** Called for writes to memory that reach the bus because the hardware's tables must not allow them (`emulate`). Undefined if there are none. */
  onTableWrite: ((address: Gpa, size: number) => void) | undefined
  deferred: Deferred | undefined
  /** The answer of the deferred access, used when its instruction runs again. */
  private answer: { readonly access: Deferred; readonly value: number } | undefined
  protected readonly ports: X86VcpuPorts
  private readonly numericErrors: NumericErrors | undefined
  protected readonly vcpu: number
  private readonly siblings: Siblings
  private readonly cpuidResult: CpuidResult = { eax: 0, ebx: 0, ecx: 0, edx: 0 }
  private readonly random = new BigUint64Array(1)
  private readonly randomBytes = new Uint8Array(this.random.buffer)

  constructor(memory: HostMemory, ports: X86VcpuPorts, vcpu: number, siblings: Siblings) {
    this.memory = memory
    this.ports = ports
    this.numericErrors = ports.capability(NumericErrors)
    this.vcpu = vcpu
    this.siblings = siblings
    this.tscFrequency = ports.clock.tscHz
  }

  /** Called only without a second stage: the walked tables are then the hypervisor's and contain host addresses. */
  hostAddress(physical: number): number {
    return physical < this.memory.bytes.length ? physical : -1
  }

  readPort(port: number, size: number): number {
    const answered = this.takeAnswer('portIo', false, port)
    if (answered !== undefined) return answered
    const value = this.ports.io.readPort(port, size as IoSize)
    if (value === IO_DEFERRED) throw this.defer('portIo', false, port, size, 0)
    this.onAccess()
    return value
  }
  writePort(port: number, size: number, value: number): void {
    if (this.takeAnswer('portIo', true, port) !== undefined) return
    if (!this.ports.io.writePort(port, size as IoSize, value >>> 0)) {
      throw this.defer('portIo', true, port, size, value >>> 0)
    }
    this.onAccess()
  }

  readDevice(physical: number, size: number): number {
    if (physical >= HOST_BUS_BASE) return this.readHostBus(physical - HOST_BUS_BASE, size)
    if (this.onTableWrite && this.ports.guestMemory.isRam(physical, size)) return this.readMemory(physical, size)
    const answered = this.takeAnswer('mmio', false, physical)
    if (answered !== undefined) return answered
    const value = this.ports.io.readMmio(physical as Gpa, size as IoSize)
    if (value === IO_DEFERRED) throw this.defer('mmio', false, physical, size, 0)
    this.onAccess()
    return value
  }
  writeDevice(physical: number, size: number, value: number): void {
    if (physical >= HOST_BUS_BASE) return this.writeHostBus(physical - HOST_BUS_BASE, size, value)
    if (this.onTableWrite && this.writeMemory(physical, size, value)) {
      this.onTableWrite(physical as Gpa, size)
      return
    }
    if (this.takeAnswer('mmio', true, physical) !== undefined) return
    if (!this.ports.io.writeMmio(physical as Gpa, size as IoSize, value >>> 0)) {
      throw this.defer('mmio', true, physical, size, value >>> 0)
    }
    this.onAccess()
  }

  /** A leaf of the hypervisor's tables leads to the host's bus: there is no exit. */
  private readHostBus(address: number, size: number): number {
    const value = this.ports.hostBus?.readMmio(address, size as IoSize) ?? -1
    this.onAccess()
    return value
  }
  private writeHostBus(address: number, size: number, value: number): void {
    this.ports.hostBus?.writeMmio(address, size as IoSize, value >>> 0)
    this.onAccess()
  }

  private readMemory(physical: number, size: number): number {
    const { guestMemory } = this.ports
    const value =
      size === 4
        ? guestMemory.readU32(physical)
        : size === 2
          ? guestMemory.readU16(physical)
          : guestMemory.readU8(physical)
    return value ?? -1
  }
  private writeMemory(physical: number, size: number, value: number): boolean {
    const { guestMemory } = this.ports
    if (size === 4) return guestMemory.writeU32(physical, value >>> 0)
    if (size === 2) return guestMemory.writeU16(physical, value & 0xffff)
    return guestMemory.writeU8(physical, value & 0xff)
  }

  /** The processor stops before the instruction (`STALLED`); the vCPU finds the access in `deferred`. */
  private defer(kind: Deferred['kind'], write: boolean, address: number, size: number, value: number): GuestFault {
    this.deferred = { kind, write, address, size, value }
    return new GuestFault(STALLED)
  }

  complete(access: Deferred, value: number): void {
    this.answer = { access, value }
  }
  /** An answer waits for its instruction, which must run next. */
  get isCompleting(): boolean {
    return this.answer !== undefined
  }
  private takeAnswer(kind: Deferred['kind'], write: boolean, address: number): number | undefined {
    const { answer } = this
    if (answer === undefined) return undefined
    const { access } = answer
    if (access.kind !== kind || access.write !== write || access.address !== address) return undefined
    this.answer = undefined
    return answer.value
  }

  readTsc(): bigint {
    return this.ports.clock.tsc()
  }

  readMsr(index: number): bigint | undefined {
    return this.ports.abi.readMsr(this.vcpu, index) ?? this.ports.interrupts.readMsr(this.vcpu, index)
  }
  writeMsr(index: number, value: bigint): boolean {
    const done =
      this.ports.abi.writeMsr(this.vcpu, index, value) ?? this.ports.interrupts.writeMsr(this.vcpu, index, value)
    this.onAccess()
    return done ?? false
  }

  cpuid(leaf: number, subleaf: number, result: Uint32Array): void {
    if (isHypervisorLeaf(leaf)) result.fill(0)
    this.identity(leaf, subleaf, result)
    const registers = this.cpuidResult
    registers.eax = result[0]!
    registers.ebx = result[1]!
    registers.ecx = result[2]!
    registers.edx = result[3]!
    this.ports.abi.cpuid(this.vcpu, leaf, subleaf, registers)
    result[0] = registers.eax
    result[1] = registers.ebx
    result[2] = registers.ecx
    result[3] = registers.edx
  }

  /** APIC identity and topology: one core a vCPU, one package. (SDM Vol. 2A, "CPUID", leaves 01H, 04H and 0BH) */
  private identity(leaf: number, subleaf: number, result: Uint32Array): void {
    const count = Math.max(1, this.siblings.count)
    const bits = 32 - Math.clz32(count - 1)
    if (leaf === 1) {
      result[1] = (result[1]! & 0xff00) | (this.vcpu << 24) | (count << 16)
      if (count > 1) result[3]! |= 1 << 28
    } else if (leaf === 4 && result[0] !== 0) {
      result[0] = (result[0]! & 0x03ff_ffff) | (((1 << bits) - 1) << 26)
    } else if (leaf === 0xb) {
      result[3] = this.vcpu
      if (subleaf === 1) {
        result[0] = bits
        result[1] = count
      }
    }
  }

  /** Its interrupt may be pending now. */
  assertFerr(isNew: boolean): boolean {
    const isIgnored = this.numericErrors?.assertFerr(this.vcpu, isNew) ?? false
    this.onAccess()
    return isIgnored
  }

  random64(): bigint {
    this.ports.entropy.fill(this.randomBytes)
    return this.random[0]!
  }

  readTaskPriority(): number {
    return this.ports.interrupts.readTaskPriority(this.vcpu)
  }
  writeTaskPriority(value: number): boolean {
    this.ports.interrupts.writeTaskPriority(this.vcpu, value)
    this.onAccess()
    return false
  }
}
