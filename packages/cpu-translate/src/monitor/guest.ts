/** The guest of one vCPU: the state that the monitor's parts share, and what they may do to it. The loop that runs it is in vcpu.ts. */

import type {
  ActivityState,
  GuestAbiVcpu,
  HostMemory,
  PagingOutcome,
  VcpuExit,
  VcpuStatePatch,
  X86VcpuPorts,
} from '@nonroot/contracts'
import { EXIT, FLAG, LEFT, Processor, resetProcessor, S, writeRegisters } from '@nonroot/x86'
import type { Core, ProcessorOptions } from '@nonroot/x86'
import { createAbiVcpu } from '../host/abi-vcpu.ts'
import { ProcessorBus } from '../host/bus.ts'
import { guestTranslate, isGlobalPage } from '../host/guest-translate.ts'
import { NeutralExits } from '../host/neutral-exits.ts'
import { TranslatePagingPort } from '../host/paging-port.ts'
import { Translations } from '../translation/translations.ts'
import { Worlds } from '../world/world.ts'
import { Events } from './events.ts'
import { Shortcuts } from './shortcuts.ts'

export interface TranslateVcpuOptions {
  readonly processor: ProcessorOptions
  /** False: kernel code runs deprivileged as it is. */
  readonly translates: boolean
  /** Bytes. */
  readonly translationCache: number
}

export class Guest {
  readonly index: number
  readonly ports: X86VcpuPorts
  readonly processor: Processor
  readonly core: Core
  readonly bus: ProcessorBus
  readonly pagingPort: TranslatePagingPort
  readonly worlds: Worlds
  readonly events: Events
  readonly translations: Translations
  readonly shortcuts: Shortcuts
  readonly abiVcpu: GuestAbiVcpu
  readonly exits = new NeutralExits()
  activity: ActivityState
  /** The vCPU is inside `run`. */
  running = false
  /** The virtual CPU runs code that is not translated. */
  interpreting = false
  /** The current slice was ended by `yield`. */
  yielded = false
  /** Why this vCPU cannot go on. */
  failure: string | undefined
  /** The exit that `run` was asked to return. */
  asked: VcpuExit | undefined

  constructor(
    index: number,
    host: HostMemory,
    ports: X86VcpuPorts,
    siblings: { count: number },
    options: TranslateVcpuOptions,
  ) {
    this.index = index
    this.ports = ports
    this.activity = index === 0 ? 'active' : 'waitForStartup'
    this.bus = new ProcessorBus(host, ports, index, siblings)
    this.bus.onAccess = () => this.#noticeInterrupts()
    this.processor = new Processor(this.bus, options.processor)
    this.core = this.processor.core
    this.worlds = new Worlds(this.core)
    this.events = new Events(index, this.core, ports)
    this.translations = new Translations(
      this.processor,
      host,
      ports.metrics.scope('translator'),
      options.translationCache,
      (low, high) => isGlobalPage(ports.guestMemory, this.pagingPort.guest, addressOf(low, high)),
    )
    this.shortcuts = new Shortcuts(this.core, this.translations, this.worlds)
    this.abiVcpu = createAbiVcpu(index, this.core, (address) => this.translate(address))
    this.pagingPort = new TranslatePagingPort(index, this.core)
    this.bus.onTableWrite = (address, size) => this.accept(ports.paging.onTableUpdate(this.pagingPort, address, size))
  }

  // --- what invalidates translations ---

  /** INVLPG of one address, or (`undefined`) of everything. */
  codeInvalidated(address: bigint | undefined): void {
    this.translations.invalidated(address)
  }
  /** CR3 was written, or a control register that changes what may be executed. */
  rootChanged(mode: boolean): void {
    this.translations.rootChanged(mode)
  }

  // --- slices ---

  /** @hot Ends the slice if another thread asked for it. */
  noticeKick(): void {
    if (this.processor.kicks.isRequested) this.yield()
  }
  /** @hot After an access that may have made an interrupt pending: ends the slice if the guest can take it. */
  #noticeInterrupts(): void {
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
  /** Leaves the guest after the instruction, asleep as after HLT. */
  halt(): typeof LEFT {
    const { core } = this
    this.activity = 'halted'
    core.set64(S.rip, core.nextRip())
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }
  leaveForHypercall(): typeof LEFT {
    const { core } = this
    this.asked = this.exits.hypercall(core)
    core.set64(S.rip, core.nextRip())
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }

  // --- state ---

  translate(address: bigint): number | undefined {
    return guestTranslate(this.ports.guestMemory, this.pagingPort.guestPaging(), address)
  }
  writeState(patch: VcpuStatePatch): void {
    writeRegisters(this.core, patch)
    if (patch.activity) this.activity = patch.activity
    this.translations.flush()
  }
  /** Resets all but the queued events. */
  reset(kind: 'powerUp' | 'init'): void {
    resetProcessor(this.core, kind)
    if (kind === 'powerUp') this.resetApicBase()
    this.activity = this.index === 0 ? 'active' : 'waitForStartup'
    this.bus.deferred = undefined
    this.asked = undefined
    this.failure = undefined
    this.translations.flush()
  }
  /** Only the first processor is the bootstrap processor. (SDM Vol. 3A, "IA32_APIC_BASE") */
  resetApicBase(): void {
    const base = this.ports.interrupts.readMsr(this.index, 0x1b)
    const bootstrap = this.index === 0 ? 0x100n : 0n
    this.core.set64(S.apicBase, base ?? 0xfee0_0800n | bootstrap)
  }

  dispose(): void {
    this.core.hooks = undefined
    this.translations.dispose()
    this.processor.dispose()
  }
}

const addressOf = (low: number, high: number): bigint =>
  BigInt.asUintN(64, (BigInt(high) << 32n) | BigInt(low >>> 0))
