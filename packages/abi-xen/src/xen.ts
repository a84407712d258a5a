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
  VmContext,
} from '@nonroot/contracts'
import { AGAIN, Call, NO_RESULT } from './call.ts'
import { Domain } from './domain.ts'
import { CPUID, MACHINE_ADDRESS_BITS, VERSION } from './facts.ts'
import { RESERVED } from './grants.ts'
import { dispatch, HYPERCALLS, type Hypercall } from './table.ts'

export class XenAbi implements X86GuestAbi {
  readonly #context: VmContext
  readonly #counters = new Map<Hypercall, Counter>()
  readonly #refused: Counter
  readonly #again: Counter
  #domain: Domain | undefined
  #call: Call | undefined

  constructor(context: VmContext) {
    this.#context = context
    const calls = context.metrics.scope('hypercalls')
    for (const row of HYPERCALLS.values()) this.#counters.set(row, calls.counter(row.name, `hypercalls ${row.name}`))
    this.#refused = calls.counter('refused', 'hypercalls that gave an error')
    this.#again = calls.counter('again', 'hypercalls that were continued')
  }

  get domain(): Domain {
    return this.#domain!
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
    this.#domain = new Domain({ hostMemory, clock, tables, platform: capability(XenPlatform), power, vcpuCount })
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
    const { registers } = vcpu
    call.vcpu = this.domain.vcpus[vcpu.index]!
    call.pv = vcpu.pv!
    call.inMulticall = false
    const { args } = call
    args[0] = registers.rdi
    args[1] = registers.rsi
    args[2] = registers.rdx
    args[3] = registers.r10
    args[4] = registers.r8
    args[5] = registers.r9
    const number = registers.rax
    const result = dispatch(call, number, (row) => this.#count(row))
    if (result === NO_RESULT) return 'done'
    if (result === AGAIN) {
      registers.rdi = args[0]
      registers.rsi = args[1]
      registers.rdx = args[2]
      registers.r10 = args[3]
      registers.r8 = args[4]
      this.#again.value++
      call.pv.repeat()
      return 'done'
    }
    if (result < 0) this.#refused.value++
    registers.rax = BigInt.asUintN(64, BigInt(result))
    return 'done'
  }

  #count(row: Hypercall): void {
    this.#counters.get(row)!.value++
  }

  // CPUID and MSRs

  cpuid(_vcpu: number, leaf: number, subleaf: number, result: CpuidResult): void {
    if (leaf === 1) result.ecx = (result.ecx | CPUID.hypervisorPresent) >>> 0
    if (leaf < CPUID.base || leaf > CPUID.last) return
    result.eax = result.ebx = result.ecx = result.edx = 0
    switch (leaf - CPUID.base) {
      case 0:
        result.eax = CPUID.last
        ;[result.ebx, result.ecx, result.edx] = CPUID.signature
        break
      case 1:
        result.eax = VERSION
        break
      case 3:
        if (subleaf === 0) result.ecx = this.#context.clock.tscHz / 1000
        break
      case 5:
        if (subleaf === 0) result.ebx = MACHINE_ADDRESS_BITS
        break
    }
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
    const { tables, platform } = domain
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
    const { tables, platform, grants } = this.domain
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
  }

  /** The next start makes everything anew. */
  reset(): void {
    for (const vcpu of this.domain.vcpus) vcpu.timers.cancel()
  }

  save(): Snapshot {
    return notSaved()
  }
  restore(): void {
    notSaved()
  }

  dispose(): void {
    if (!this.#domain) return
    for (const vcpu of this.#domain.vcpus) vcpu.timers.cancel()
    this.#domain.grants.dispose()
    this.#context.hostMemory.freeFrame(this.#domain.sharedInfo)
  }
}

const notSaved = (): never => {
  throw new NonrootError({
    code: 'snapshot.mismatch',
    message: 'a Xen guest cannot be saved yet',
    thing: 'stack.abi',
    remedy: 'save guests of ABI kvm or bare',
  })
}
