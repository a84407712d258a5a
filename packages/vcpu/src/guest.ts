/** The guest of one vCPU, as every CPU mode on the software processor has it: what the parts of a mode share, and what they may do to it. */

import type { ActivityState, GuestAbiVcpu, PagingOutcome, VcpuExit, VcpuStatePatch, X86VcpuPorts } from '@nonroot/contracts'
import { EXIT, FLAG, LEFT, Processor, resetProcessor, S, writeRegisters } from '@nonroot/x86'
import type { Core, ProcessorOptions } from '@nonroot/x86'
import { createAbiVcpu } from './abi-vcpu.ts'
import type { ProcessorBus } from './bus.ts'
import { guestTranslate } from './guest-translate.ts'
import { NeutralExits } from './neutral-exits.ts'
import type { ProcessorPagingPort } from './paging-port.ts'

export abstract class VcpuGuest<Bus extends ProcessorBus = ProcessorBus> {
  readonly index: number
  readonly ports: X86VcpuPorts
  readonly processor: Processor
  readonly core: Core
  readonly bus: Bus
  abstract readonly pagingPort: ProcessorPagingPort
  readonly abiVcpu: GuestAbiVcpu
  /** Exits that leave the vCPU. */
  readonly exits = new NeutralExits()
  activity: ActivityState
  /** The vCPU is inside `run`. */
  running = false
  /** The current slice was ended by `yield`. */
  yielded = false
  /** Why this vCPU cannot go on. */
  failure: string | undefined
  /** The exit that `run` was asked to return. */
  asked: VcpuExit | undefined

  constructor(index: number, ports: X86VcpuPorts, bus: Bus, options: ProcessorOptions) {
    this.index = index
    this.ports = ports
    this.activity = index === 0 ? 'active' : 'waitForStartup'
    this.bus = bus
    bus.onAccess = () => this.noticeInterrupts()
    this.processor = new Processor(bus, options)
    this.core = this.processor.core
    this.abiVcpu = createAbiVcpu(index, this.core, (address) => this.translate(address))
  }

  // --- slices ---

  /** @hot Ends the slice if another thread asked for it. Devices and the hypervisor take longer than the instructions that they are counted as. */
  noticeKick(): void {
    if (this.processor.kicks.isRequested) this.yield()
  }
  /** @hot After an access that may have made an interrupt pending: ends the slice if the guest can take it. */
  private noticeInterrupts(): void {
    this.noticeKick()
    const { interrupts } = this.ports
    if (!interrupts.hasPending(this.index) && interrupts.signals(this.index) === 0) return
    this.core.set32(S.attention, 1)
    if (this.core.get32(S.flags) & FLAG.IF || interrupts.signals(this.index) !== 0) this.yield()
  }
  /** Ends the slice at the next block. */
  yield(): void {
    if (!this.running) return
    this.yielded = true
    this.processor.yield()
  }
  /** Makes `run` return. */
  kick(): void {
    this.processor.kicks.request()
    this.yield()
  }

  // --- exits ---

  /** Ends this VM; the first message is the one reported. */
  fail(message: string): typeof LEFT {
    this.failure ??= message
    this.core.set32(S.exit, EXIT.abandoned)
    this.yield()
    return LEFT
  }
  /** Handles the outcome of a paging strategy that can only be `resume` or `failure`. */
  accept(outcome: PagingOutcome): void {
    if (outcome.next === 'failure') this.fail(outcome.message)
  }
  shutdown(): void {
    this.activity = 'shutdown'
    this.asked = this.exits.shutdown
  }
  leaveForHypercall(): typeof LEFT {
    this.asked = this.exits.hypercall(this.core)
    return this.leaveBehind()
  }
  /** Leaves the guest after the instruction, asleep as after HLT. */
  halt(): typeof LEFT {
    this.activity = 'halted'
    return this.leaveBehind()
  }
  private leaveBehind(): typeof LEFT {
    const { core } = this
    core.set64(S.rip, core.nextRip())
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }
  /** The guest was left because a device deferred its answer, or for an exit that was asked for. */
  takeExit(): VcpuExit | undefined {
    const { deferred } = this.bus
    if (deferred) return this.exits.deferred(deferred)
    const { asked } = this
    this.asked = undefined
    return asked
  }

  // --- state ---

  /** By the guest's own tables, without their rights. Undefined: not mapped. */
  translate(address: bigint): number | undefined {
    return guestTranslate(this.ports.guestMemory, this.pagingPort.guestPaging(), address)
  }
  writeState(patch: VcpuStatePatch): void {
    writeRegisters(this.core, patch)
    if (patch.activity) this.activity = patch.activity
  }
  /** Resets all but the queued events. */
  reset(kind: 'powerUp' | 'init'): void {
    resetProcessor(this.core, kind)
    if (kind === 'powerUp') this.resetApicBase()
    this.activity = this.index === 0 ? 'active' : 'waitForStartup'
    this.bus.deferred = undefined
    this.asked = undefined
    this.failure = undefined
  }
  /** Only the first processor is the bootstrap processor. (SDM Vol. 3A, "IA32_APIC_BASE") */
  resetApicBase(): void {
    const base = this.ports.interrupts.readMsr(this.index, 0x1b)
    const bootstrap = this.index === 0 ? 0x100n : 0n
    this.core.set64(S.apicBase, base ?? 0xfee0_0800n | bootstrap)
  }

  dispose(): void {
    this.core.hooks = undefined
    this.processor.dispose()
  }
}
