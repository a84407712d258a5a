/** The guest ABI `xen-hvm`: Xen's hypercalls for a guest with page tables and interrupts of its own, entered by PVH or as a PC. */

import { NonrootError, XenPlatform } from '@nonroot/contracts'
import type {
  Counter,
  CpuidResult,
  GuestAbiVcpu,
  HypercallResult,
  RingBackend,
  Snapshot,
  VmContext,
  X86GuestAbi,
  X86GuestAbiPorts,
} from '@nonroot/contracts'
import { AGAIN, Call } from '../call.ts'
import { hypervisorLeaf } from '../cpuid.ts'
import { Domain } from '../domain.ts'
import { CPUID, DOMAIN, fail } from '../facts.ts'
import { RESERVED } from '../grants/table.ts'
import { makeCall } from '../make-call.ts'
import { CallStatistics, leakCounter } from '../statistics.ts'
import { hypercallPage } from './hypercall-page.ts'
import { GuestPages, PARAMETER, type HvmState } from './state.ts'
import { HvmCallVcpu } from './vcpu.ts'
import { notSaved } from '../not-saved.ts'

const LAST_LEAF = CPUID.base + 4
/** Writing a guest-physical address there fills the page with hypercall entries. */
const PAGE_MSR = 0x4000_0000
const PAGE = 4096
const ADDRESS_LIMIT = 1n << 48n

export class XenHvmAbi implements X86GuestAbi {
  readonly #context: VmContext
  readonly #statistics: CallStatistics
  readonly #cpu: HvmCallVcpu
  readonly #hvm: HvmState
  readonly #leaks: Counter
  #domain: Domain | undefined
  #call: Call | undefined

  constructor(context: VmContext) {
    this.#context = context
    this.#leaks = leakCounter(context)
    this.#statistics = new CallStatistics(context.metrics.scope('hypercalls'))
    this.#cpu = new HvmCallVcpu(context.guestMemory)
    this.#hvm = {
      pages: new GuestPages(context.guestFrames),
      parameters: new Map(),
      sharedInfoFrame: undefined,
      grantFrames: new Map(),
      ramFrames: context.guestMemory.size / PAGE,
    }
  }

  get domain(): Domain {
    return this.#domain!
  }

  attach({ clock, vcpuCount, power, capability }: X86GuestAbiPorts): void {
    const { hostMemory } = this.#context
    const platform = capability(XenPlatform)
    if (platform.console.page === undefined) {
      throw new NonrootError({
        code: 'stack.incompatible',
        message: 'ABI xen-hvm works with event channels that come as interrupts',
        thing: 'stack.io',
        remedy: 'choose { use: "@nonroot/io-xen", strategy: xen-hvm } in stack.io',
      })
    }
    const hvm = this.#hvm
    this.#domain = new Domain({ hostMemory, clock, frames: hvm.pages, hvm, platform, power, vcpuCount })
    this.#call = new Call(this.#domain)
    this.#begin()
  }

  /** As a new domain has it. */
  #begin(): void {
    const hvm = this.#hvm
    const { domain } = this
    const { platform, grants } = domain
    hvm.pages.reset()
    hvm.parameters.clear()
    hvm.grantFrames.clear()
    hvm.sharedInfoFrame = undefined
    domain.begin()
    platform.begin()
    const connect = (ring: RingBackend, entry: number, frameParameter: number, portParameter: number): void => {
      const frame = ring.page! / PAGE
      this.#context.guestMemory.fill(ring.page!, PAGE, 0)
      hvm.pages.hold(frame)
      grants.seed(entry, frame)
      hvm.parameters.set(frameParameter, BigInt(frame))
      hvm.parameters.set(portParameter, BigInt(ring.port))
      ring.connect(ring.page!)
    }
    connect(platform.console, RESERVED.console, PARAMETER.consoleFrame, PARAMETER.consolePort)
    connect(platform.store, RESERVED.store, PARAMETER.storeFrame, PARAMETER.storePort)
  }

  hypercall(vcpu: GuestAbiVcpu): HypercallResult {
    const call = this.#call!
    const { registers } = vcpu
    if (vcpu.cpl !== 0 || !vcpu.longMode) {
      // Arguments of 32-bit kernels are laid out otherwise.
      registers.rax = BigInt.asUintN(64, BigInt(fail(vcpu.cpl !== 0 ? 'EPERM' : 'ENOSYS')))
      return 'done'
    }
    this.#cpu.begin(vcpu)
    call.cpu = this.#cpu
    const result = makeCall(call, this.domain.vcpus[vcpu.index]!, registers, this.#statistics)
    return result === AGAIN ? 'again' : this.#cpu.wanted
  }

  cpuid(vcpu: number, leaf: number, subleaf: number, result: CpuidResult): void {
    hypervisorLeaf(leaf, subleaf, LAST_LEAF, this.#context.clock, result)
    if (leaf === CPUID.base + 2) {
      result.eax = 1
      result.ebx = PAGE_MSR
    } else if (leaf === LAST_LEAF && subleaf === 0) {
      result.eax = CPUID.hvm.vcpu | CPUID.hvm.domain | CPUID.hvm.upcallVector
      result.ebx = vcpu
      result.ecx = DOMAIN
    }
  }
  readMsr(_vcpu: number, index: number): bigint | undefined {
    return index === PAGE_MSR ? 0n : undefined
  }
  writeMsr(_vcpu: number, index: number, value: bigint): boolean | undefined {
    if (index !== PAGE_MSR) return undefined
    const page = value & ~0xfffn
    // The lowest bits choose among pages of entries; there is one.
    return value === page && page < ADDRESS_LIMIT && this.#context.guestMemory.writeBytes(Number(page), hypercallPage())
  }

  /** All pages that were held go back to the guest. */
  ended(): void {
    const { pages, parameters, sharedInfoFrame, grantFrames } = this.#hvm
    const grants = this.domain.end()
    const rings = [PARAMETER.consoleFrame, PARAMETER.storeFrame].map((index) => Number(parameters.get(index)))
    const shown = sharedInfoFrame === undefined ? [] : [sharedInfoFrame]
    for (const frame of [...rings, ...shown, ...grantFrames.values()]) pages.release(frame)
    this.#hvm.sharedInfoFrame = undefined
    grantFrames.clear()
    this.#leaks.value += grants + pages.count
  }

  reset(): void {
    this.ended()
    this.#begin()
  }

  save(): Snapshot {
    return notSaved()
  }
  restore(): void {
    notSaved()
  }

  dispose(): void {
    this.#domain?.dispose()
  }
}
