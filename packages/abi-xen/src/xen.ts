/** The guest ABI `xen`: hypercalls by table, CPUID leaves, and the start of a paravirtual guest. */

import { NonrootError, XenPlatform } from '@nonroot/contracts'
import type {
  Counter,
  CpuidResult,
  X86GuestAbi,
  X86GuestAbiPorts,
  GuestAbiVcpu,
  HypercallResult,
  ParavirtualMachine,
  ParavirtualMemory,
  ParavirtualPlaces,
  Snapshot,
  TableCalls,
  VmContext,
} from '@nonroot/contracts'
import { AGAIN, Call } from './call.ts'
import { Domain } from './domain.ts'
import { hypervisorLeaf } from './cpuid.ts'
import { CPUID, MACHINE_ADDRESS_BITS } from './facts.ts'
import { RESERVED } from './grants/table.ts'
import { makeCall } from './make-call.ts'
import { CallStatistics, leakCounter } from './statistics.ts'
import { notSaved } from './not-saved.ts'

export class XenAbi implements X86GuestAbi {
  readonly #context: VmContext
  readonly #statistics: CallStatistics
  readonly #leaks: Counter
  #domain: Domain | undefined
  #call: Call | undefined
  /** Frames of the rings, which back ends hold. */
  #rings: readonly number[] = []

  constructor(context: VmContext) {
    this.#context = context
    this.#leaks = leakCounter(context)
    this.#statistics = new CallStatistics(context.metrics.scope('hypercalls'))
  }

  get domain(): Domain {
    return this.#domain!
  }

  get #tables(): TableCalls {
    return this.domain.tables!
  }

  attach({ clock, vcpuCount, power, paging, capability }: X86GuestAbiPorts): void {
    const { tableCalls: tables } = paging
    if (!tables) {
      throw new NonrootError({
        code: 'stack.incompatible',
        message: 'ABI xen works with a paging strategy whose tables are changed by call',
        thing: 'stack.paging',
        remedy: 'choose stack.paging: { use: "@nonroot/mmu", strategy: direct }',
      })
    }
    const { hostMemory } = this.#context
    const platform = capability(XenPlatform)
    this.#domain = new Domain({ hostMemory, clock, frames: tables, tables, platform, power, vcpuCount })
    this.#call = new Call(this.#domain)
  }

  addVcpu(vcpu: GuestAbiVcpu): void {
    const own = this.domain.vcpus[vcpu.index]!
    own.abi = vcpu
    this.domain.setInfo(own, own.info)
  }

  // Hypercalls

  hypercall(vcpu: GuestAbiVcpu): HypercallResult {
    const call = this.#call!
    const pv = vcpu.pv!
    call.pv = call.cpu = pv
    if (makeCall(call, this.domain.vcpus[vcpu.index]!, vcpu.registers, this.#statistics) === AGAIN) pv.repeat()
    return 'done'
  }

  // CPUID and MSRs

  cpuid(_vcpu: number, leaf: number, subleaf: number, result: CpuidResult): void {
    hypervisorLeaf(leaf, subleaf, CPUID.last, this.#context.clock, result)
    if (leaf === CPUID.base + 5 && subleaf === 0) result.ebx = MACHINE_ADDRESS_BITS
  }
  readMsr(): undefined {
    return undefined
  }
  writeMsr(): undefined {
    return undefined
  }

  // Start of day

  readonly paravirtual: ParavirtualMachine = {
    begin: () => this.#begin(),
    start: (places) => this.#start(places),
  }

  #begin(): ParavirtualMemory {
    const { domain } = this
    const { platform } = domain
    const tables = this.#tables
    const machineFrames = tables.populate()
    platform.begin()
    domain.begin()
    return {
      guestMemory: this.#context.guestMemory,
      machineFrames,
      addressOf: (frame) => tables.addressOf(machineFrames[frame]!)!,
      sharedInfo: domain.sharedInfo,
      storePort: platform.store.port,
      consolePort: platform.console.port,
      magic: 'xen-3.0-x86_64',
    }
  }

  #start({ root, store, console }: ParavirtualPlaces): void {
    const { platform, grants } = this.domain
    const tables = this.#tables
    const status = tables.pin(4, root)
    if (status !== 'ok') {
      throw new NonrootError({
        code: 'internal',
        message: `the first page tables of the guest are not valid: ${status}`,
        thing: 'boot',
      })
    }
    for (const [ring, frame, entry] of [
      [platform.store, store, RESERVED.store],
      [platform.console, console, RESERVED.console],
    ] as const) {
      tables.hold(frame)
      grants.seed(entry, frame)
      ring.connect(tables.addressOf(frame)!)
    }
    this.#rings = [store, console]
  }

  /** All counts return to what they were before the domain began. */
  ended(): void {
    const grants = this.domain.end()
    for (const frame of this.#rings) this.#tables.release(frame)
    this.#rings = []
    this.#leaks.value += grants + this.#tables.settle()
  }

  /** The next start makes everything anew. */
  reset(): void {
    this.ended()
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
