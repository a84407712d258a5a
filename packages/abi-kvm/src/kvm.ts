/** The guest ABI `kvm`: KVM's paravirtual interface as Linux uses it. Independent of CPU modes and devices. */

import { NonrootError } from '@nonroot/contracts'
import type {
  CpuidResult,
  X86GuestAbi,
  X86GuestAbiPorts,
  GuestAbiVcpu,
  HypercallResult,
  Snapshot,
} from '@nonroot/contracts'
import { ENABLED, Feature, Hypercall, HypercallError, HYPERVISOR_PRESENT, Leaf, Msr, SIGNATURE } from './facts.ts'
import { writeTimeInfo, writeWallClock } from './kvm-clock.ts'
import type { KvmOptions } from './options.ts'
import { PvEoi } from './pv-eoi.ts'
import { writeStealTime } from './steal-time.ts'

interface VcpuMsrs {
  systemTime: bigint
  stealTime: bigint
  pvEoi: bigint
  pollControl: bigint
}
const powerOn = (): VcpuMsrs => ({ systemTime: 0n, stealTime: 0n, pvEoi: 0n, pollControl: 1n })

const TYPE = 'abi-kvm'
/** Guest-physical addresses have 52 bits. */
const ADDRESS_LIMIT = 1n << 52n
const KHZ = 1000
/** Vector and delivery mode of an ICR value: all that the hypercall looks at. */
const ICR_VECTOR = 0xffn
const ICR_DELIVERY_MODE = 0x700n

export class KvmAbi implements X86GuestAbi {
  readonly #options: KvmOptions
  #ports!: X86GuestAbiPorts
  #pvEoi: PvEoi | undefined
  #msrs: VcpuMsrs[] = []
  #wallClock = 0n
  #features = 0
  #stolenNs = new Float64Array(0)
  #stealChanged: Uint8Array = new Uint8Array(0)

  constructor(options: KvmOptions) {
    this.#options = options
  }

  attach(ports: X86GuestAbiPorts): void {
    this.#ports = ports
    this.#msrs = Array.from({ length: ports.vcpuCount }, powerOn)
    this.#stolenNs = new Float64Array(ports.vcpuCount)
    this.#stealChanged = new Uint8Array(ports.vcpuCount)
    const { clock, stealTime, pvEoi } = this.#options
    if (pvEoi && ports.interrupts.setEoiAssist) {
      this.#pvEoi = new PvEoi(ports.guestMemory, ports.vcpuCount)
      ports.interrupts.setEoiAssist(this.#pvEoi)
    }
    this.#features =
      Feature.noIoDelay |
      Feature.pollControl |
      (clock ? Feature.oldClock | Feature.clock | Feature.stableClock : 0) |
      (stealTime ? Feature.stealTime : 0) |
      (this.#pvEoi ? Feature.pvEoi : 0) |
      (ports.vcpuCount > 1 ? Feature.sendIpi | Feature.schedYield : 0)
  }

  cpuid(_vcpu: number, leaf: number, _subleaf: number, result: CpuidResult): void {
    if (leaf === 1) result.ecx = (result.ecx | HYPERVISOR_PRESENT) >>> 0
    if (leaf < Leaf.signature || leaf > Leaf.last) return
    result.eax = result.ebx = result.ecx = result.edx = 0
    if (leaf === Leaf.signature) {
      result.eax = Leaf.frequencies
      Object.assign(result, SIGNATURE)
    } else if (leaf === Leaf.features) result.eax = this.#features
    else if (leaf === Leaf.frequencies) {
      result.eax = this.#ports.clock.tscHz / KHZ
      result.ebx = this.#options.apicTimerHz / KHZ
    }
  }

  readMsr(vcpu: number, index: number): bigint | undefined {
    const msrs = this.#msrs[vcpu]!
    switch (this.#offered(index)) {
      case Msr.wallClock:
        return this.#wallClock
      case Msr.systemTime:
        return msrs.systemTime
      case Msr.stealTime:
        return msrs.stealTime
      case Msr.pvEoi:
        return msrs.pvEoi
      case Msr.pollControl:
        return msrs.pollControl
    }
    return undefined
  }

  writeMsr(vcpu: number, index: number, value: bigint): boolean | undefined {
    const msrs = this.#msrs[vcpu]!
    switch (this.#offered(index)) {
      case Msr.wallClock:
        this.#wallClock = value
        if (value < ADDRESS_LIMIT) writeWallClock(this.#ports.guestMemory, this.#ports.clock, Number(value))
        return true
      case Msr.systemTime: {
        msrs.systemTime = value
        const address = enabledAddress(value)
        if (address !== undefined) writeTimeInfo(this.#ports.guestMemory, this.#ports.clock, address)
        return true
      }
      case Msr.stealTime:
        if (value & 0x3en) return false
        msrs.stealTime = value
        this.#writeStealTime(vcpu)
        return true
      case Msr.pvEoi:
        if (value & 2n) return false
        msrs.pvEoi = value
        this.#pvEoi!.enable(vcpu, enabledAddress(value))
        return true
      case Msr.pollControl:
        if (value & ~1n) return false
        msrs.pollControl = value
        return true
    }
    return undefined
  }

  /** The MSR by its present number, if what it belongs to is offered; else undefined. */
  #offered(index: number): number | undefined {
    const { clock, stealTime } = this.#options
    switch (index) {
      case Msr.oldWallClock:
      case Msr.wallClock:
        return clock ? Msr.wallClock : undefined
      case Msr.oldSystemTime:
      case Msr.systemTime:
        return clock ? Msr.systemTime : undefined
      case Msr.stealTime:
        return stealTime ? index : undefined
      case Msr.pvEoi:
        return this.#pvEoi ? index : undefined
      case Msr.pollControl:
        return index
    }
    return undefined
  }

  hypercall(vcpu: GuestAbiVcpu): HypercallResult {
    const { registers } = vcpu
    const mask = vcpu.longMode ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn
    const result = vcpu.cpl === 0 ? this.#call(vcpu, mask) : -HypercallError.permission
    registers.rax = BigInt(result) & mask
    return 'done'
  }

  #call(vcpu: GuestAbiVcpu, mask: bigint): number {
    const { rax, rbx, rcx, rdx, rsi } = vcpu.registers
    switch (Number(rax & mask)) {
      case Hypercall.vapicPollIrq: // an exit is all it is for: interrupts are looked at before the next entry
        return 0
      case Hypercall.sendIpi:
        if (this.#ports.vcpuCount === 1) break
        return this.#sendIpi(
          (rbx & mask) | ((rcx & mask) << (vcpu.longMode ? 64n : 32n)),
          Number(rdx & mask),
          rsi & mask,
        )
      case Hypercall.schedYield:
        return 0
    }
    return -HypercallError.unknown
  }

  /** One bit of `targets` for each APIC ID from `first`. How many were reached. */
  #sendIpi(targets: bigint, first: number, icr: bigint): number {
    const data = Number(icr & (ICR_VECTOR | ICR_DELIVERY_MODE))
    let reached = 0
    for (let id = first; targets && id < Math.min(this.#ports.vcpuCount, 255); id++, targets >>= 1n) {
      if (!(targets & 1n)) continue
      this.#ports.interrupts.messages.send(0xfee0_0000 + id * 0x1000, data)
      reached++
    }
    return reached
  }

  /** The scheduler reports: the vCPU was ready for so long and did not run. The guest sees it at its next entry. */
  accountSteal(vcpu: number, ns: number): void {
    this.#stolenNs[vcpu]! += ns
    this.#stealChanged[vcpu] = 1
  }

  onEntry(vcpu: number): void {
    if (this.#stealChanged[vcpu]) this.#writeStealTime(vcpu)
  }

  #writeStealTime(vcpu: number): void {
    this.#stealChanged[vcpu] = 0
    const address = enabledAddress(this.#msrs[vcpu]!.stealTime)
    if (address !== undefined) writeStealTime(this.#ports.guestMemory, address, this.#stolenNs[vcpu]!)
  }

  reset(): void {
    this.#msrs.forEach((msrs) => Object.assign(msrs, powerOn()))
    this.#wallClock = 0n
    this.#stolenNs.fill(0)
    this.#stealChanged.fill(0)
    this.#pvEoi?.reset()
  }

  save(): Snapshot {
    return {
      type: TYPE,
      version: 1,
      data: {
        msrs: this.#msrs.map((msrs) => ({ ...msrs })),
        wallClock: this.#wallClock,
        stolenNs: Array.from(this.#stolenNs),
        stealChanged: Array.from(this.#stealChanged),
      },
    }
  }

  /** The structures themselves are in guest memory, and the clock they speak of is restored with it. */
  restore(snapshot: Snapshot): void {
    const msrs = snapshot.data['msrs'] as unknown as VcpuMsrs[] | undefined
    if (snapshot.type !== TYPE || snapshot.version !== 1 || msrs?.length !== this.#msrs.length) {
      throw new NonrootError({
        code: 'snapshot.mismatch',
        message: `a snapshot of ${snapshot.type}, version ${snapshot.version}, does not fit ${TYPE}, version 1, with ${this.#msrs.length} vCPU`,
        thing: TYPE,
        remedy: 'restore it with the stack and the number of vCPUs that saved it',
      })
    }
    this.reset()
    this.#msrs.forEach((into, vcpu) => {
      Object.assign(into, msrs[vcpu])
      this.#pvEoi?.enable(vcpu, enabledAddress(into.pvEoi))
    })
    this.#wallClock = snapshot.data['wallClock'] as bigint
    this.#stolenNs.set(snapshot.data['stolenNs'] as number[])
    this.#stealChanged.set((snapshot.data['stealChanged'] as number[] | undefined) ?? [])
  }
}

/** The address in an MSR, if bit 0 enables it and memory could be there. */
const enabledAddress = (value: bigint): number | undefined =>
  value & ENABLED && value < ADDRESS_LIMIT ? Number(value & ~ENABLED) : undefined
