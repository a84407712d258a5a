/**
 * A virtual processor in non-root operation: VM entry with its checks and injections, the loop between exits, and the neutral exits for
 * what the VM's roles do not settle. What each exit does is in handlers.ts.
 */

import { GENERAL_REGISTERS, NonrootError, VcpuSignal } from '@nonroot/contracts'
import type {
  ActivityState,
  GuestAbiVcpu,
  HostMemory,
  Hpa,
  PagingOutcome,
  Snapshot,
  SnapshotValue,
  Vcpu,
  VcpuEvent,
  VcpuExit,
  VcpuPorts,
  VcpuState,
  VcpuStatePatch,
} from '@nonroot/contracts'
import {
  deliver,
  EVENT,
  EXIT,
  FLAG,
  gpr,
  LEFT,
  Processor,
  RAX,
  readRegisters,
  resetProcessor,
  S,
  SEGMENT,
  setRealSegment,
  TIER_METRICS,
  tierStatistics,
  writeRegisters,
} from '@nonroot/x86'
import type { Core, StopReason, TierMetric } from '@nonroot/x86'
import { ExitAccounting } from './accounting.ts'
import { EntryControl } from './controls.ts'
import { failedEntryCheck, type EntryCheckContext } from './entry-checks.ts'
import { recordEntryFailure } from './exit-qualification.ts'
import { GuestState } from './guest-state.ts'
import { guestTranslate } from './guest-translate.ts'
import type { TaskSwitchRequest } from './handlers.ts'
import { ControlCache } from './intercepts.ts'
import {
  exceptionHasErrorCode,
  interruptionInfo,
  InterruptionType,
  interruptionType,
  interruptionVector,
  isInterruptionValid,
} from './interruption-info.ts'
import { NonRootOperation } from './non-root.ts'
import { VmxPagingPort } from './paging-port.ts'
import { initialiseVmcs } from './initial-vmcs.ts'
import { Surroundings, type Deferred } from './surroundings.ts'
import { Vmcs } from './vmcs.ts'

export interface VmxVcpuOptions {
  /** Bytes for decoded code. */
  readonly codeCache?: number | undefined
}

const NMI_VECTOR = 2
const EFER_LMA = 0x400

export class VmxVcpu implements Vcpu {
  readonly index: number
  readonly ports: VcpuPorts
  readonly core: Core
  readonly vmcs: Vmcs
  readonly controls = new ControlCache()
  readonly accounting: ExitAccounting
  readonly pagingPort: VmxPagingPort
  readonly abiVcpu: GuestAbiVcpu

  // The exit being handled.
  /** Low half of its qualification. */
  qualification = 0
  faultPhysical = 0
  taskSwitch: TaskSwitchRequest | undefined
  /** The guest's MOV to CR3 has bit 63 set. */
  keepsTranslations = false
  private rootWritten = false
  private readonly faultWords = new Uint32Array(2)
  private readonly fault = new BigUint64Array(this.faultWords.buffer)

  private readonly host: HostMemory
  private readonly processor: Processor
  private readonly surroundings: Surroundings
  private readonly nonRoot: NonRootOperation
  private readonly entryContext: EntryCheckContext
  private readonly guestState: GuestState
  private activity: ActivityState
  private checkedGeneration = -1
  private running = false
  /** The slice was cut short by us. */
  private yielded = false
  private kicked = false
  private failure: string | undefined
  /** A neutral exit that a handler asked for. */
  private asked: VcpuExit | undefined
  private readonly queued: { interrupt?: VcpuEvent; nmi?: VcpuEvent; exception?: VcpuEvent } = {}

  private readonly budgetExit = { reason: 'budget' as const }
  private readonly haltExit = { reason: 'halt' as const }
  private readonly shutdownExit = { reason: 'shutdown' as const }
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

  constructor(
    index: number,
    host: HostMemory,
    ports: VcpuPorts,
    siblings: { count: number },
    context: EntryCheckContext,
    options: VmxVcpuOptions,
  ) {
    this.index = index
    this.host = host
    this.ports = ports
    this.entryContext = context
    this.activity = index === 0 ? 'active' : 'waitForStartup'
    this.surroundings = new Surroundings(host, ports, index, siblings)
    this.surroundings.onAccess = () => this.noticeInterrupts()
    this.processor = new Processor(
      this.surroundings,
      options.codeCache === undefined ? {} : { codeCache: options.codeCache },
    )
    this.core = this.processor.core
    this.vmcs = Vmcs.create(host)
    this.guestState = new GuestState(this.core)
    this.vmcs.resident = this.guestState
    this.accounting = new ExitAccounting(ports.metrics)
    this.abiVcpu = this.createAbiVcpu()
    initialiseVmcs(this.vmcs, host, index)
    this.pagingPort = new VmxPagingPort(index, this.core, this.vmcs, () => this.controlsChanged())
    this.nonRoot = new NonRootOperation(this)
    this.core.nonRoot = this.nonRoot
    this.identify()
    ports.paging.attach(this.pagingPort)
    this.controlsChanged()
  }

  // --- entry ---

  run(budget: number): VcpuExit {
    if (this.surroundings.deferred) this.finishDeferred(this.surroundings.deferred)
    const end = this.processor.retired + budget
    this.running = true
    try {
      return this.loop(end)
    } finally {
      this.running = false
    }
  }

  private loop(end: number): VcpuExit {
    const { processor } = this
    for (;;) {
      if (this.kicked) {
        this.kicked = false
        return this.budgetExit
      }
      const outside = this.enter()
      if (outside) return outside
      const before = processor.retired
      const left = end - before
      if (left <= 0) return this.budgetExit
      let stop = this.runProcessor(left)
      // The block at RIP is longer than what is left: so that time goes on, go through it one by one.
      if (stop === 'budget' && !this.yielded && processor.retired === before) stop = this.runProcessor(0)
      else if (stop === 'budget' && !this.yielded) return this.budgetExit
      this.yielded = false
      const exit = this.act(stop)
      if (exit) return exit
    }
  }

  /** One stay in the guest; a budget of 0 is one instruction. */
  private runProcessor(budget: number): StopReason | undefined {
    const { core, processor, surroundings } = this
    // An instruction that waits for its device goes first and alone; so does what STI and MOV SS shield while something waits.
    const alone = surroundings.isCompleting || (core.get32(S.shadow) !== 0 && core.get32(S.attention) !== 0)
    if (alone) return processor.stepOverShadow()
    return budget > 0 ? processor.run(budget) : processor.step()
  }

  /** What the processor's stop means outside; undefined: go in again. */
  private act(stop: StopReason | undefined): VcpuExit | undefined {
    if (this.failure !== undefined) return this.failed()
    switch (stop) {
      case 'halt':
        this.activity = 'halted'
        return undefined
      case 'shutdown':
        this.activity = 'shutdown'
        return this.shutdownExit
      case 'stop': {
        if (this.surroundings.deferred) return this.deferredExit(this.surroundings.deferred)
        const { asked } = this
        this.asked = undefined
        return asked
      }
      default:
        return undefined
    }
  }

  /** Everything before the guest runs: signals, activity, checks, injection. An exit if it cannot run now. */
  private enter(): VcpuExit | undefined {
    if (this.failure !== undefined) return this.failed()
    const { interrupts } = this.ports
    if (interrupts.signals(this.index) !== 0) this.takeSignals()
    if (this.activity === 'shutdown') return this.shutdownExit
    if (this.activity === 'waitForStartup') return this.haltExit
    if (this.vmcs.generation !== this.checkedGeneration && !this.checkEntry()) return this.failed()
    if (!this.surroundings.isCompleting) this.injectEvents()
    if (this.failure !== undefined) return this.failed()
    return this.activity === 'halted' ? this.haltExit : undefined
  }

  private checkEntry(): boolean {
    // With unrestricted guest, exits keep this control in step with EFER.LMA.
    const control = this.vmcs.read32('entryControls')
    const long = (this.core.get32(S.efer) & EFER_LMA) !== 0
    this.vmcs.write32(
      'entryControls',
      long ? control | EntryControl.ia32eModeGuest : control & ~EntryControl.ia32eModeGuest,
    )
    const failed = failedEntryCheck(this.vmcs, this.entryContext)
    if (failed) {
      recordEntryFailure(this.vmcs, 0)
      this.fail(`VM entry failed its check '${failed.id}' (SDM, "${failed.sdm}")`)
      return false
    }
    this.checkedGeneration = this.vmcs.generation
    this.vmcs.launchState = 'launched'
    return true
  }

  private takeSignals(): void {
    const { interrupts } = this.ports
    const signals = interrupts.signals(this.index)
    if (signals & VcpuSignal.init) {
      interrupts.takeSignal(this.index, VcpuSignal.init)
      this.count('init')
      this.reset('init')
    }
    if (signals & VcpuSignal.startup) {
      const vector = interrupts.takeSignal(this.index, VcpuSignal.startup)
      // Outside wait-for-SIPI it is lost.
      if (this.activity === 'waitForStartup') {
        this.count('startup')
        setRealSegment(this.core, SEGMENT.cs, vector << 8)
        this.writeState({ rip: 0n, activity: 'active' })
      }
    }
    if (signals & VcpuSignal.smi) interrupts.takeSignal(this.index, VcpuSignal.smi)
    if (signals & VcpuSignal.nmi) {
      interrupts.takeSignal(this.index, VcpuSignal.nmi)
      this.queued.nmi = { kind: 'nmi' }
    }
  }

  /** At most one event goes in; what must wait sets `attention`, so that the guest comes out when a window opens. */
  private injectEvents(): void {
    const { core, queued } = this
    core.set32(S.attention, 0)
    const shadow = core.get32(S.shadow)
    if (queued.exception) {
      const event = queued.exception
      delete queued.exception
      return this.injectException(event as VcpuEvent & { kind: 'exception' })
    }
    if (queued.nmi) {
      if (!core.get32(S.nmiBlocked) && shadow === 0) {
        delete queued.nmi
        return this.deliver(interruptionInfo(InterruptionType.nmi, NMI_VECTOR), 0)
      }
      core.set32(S.attention, 1)
    }
    const pending = queued.interrupt !== undefined || this.ports.interrupts.hasPending(this.index)
    if (!pending) return
    if (!(core.get32(S.flags) & FLAG.IF) || shadow !== 0) return core.set32(S.attention, 1)
    const queuedVector = queued.interrupt?.kind === 'interrupt' ? queued.interrupt.vector : -1
    delete queued.interrupt
    const vector = queuedVector >= 0 ? queuedVector : this.ports.interrupts.acknowledge(this.index)
    if (vector < 0) return
    this.deliver(interruptionInfo(InterruptionType.externalInterrupt, vector), 0)
    if (this.ports.interrupts.hasPending(this.index)) core.set32(S.attention, 1)
  }

  private injectException({ vector, errorCode, cr2 }: VcpuEvent & { kind: 'exception' }): void {
    if (cr2 !== undefined) this.core.set64(S.cr2, cr2)
    const withCode = errorCode !== undefined && exceptionHasErrorCode(vector)
    const type = vector === 3 || vector === 4 ? InterruptionType.softwareException : InterruptionType.hardwareException
    this.deliver(interruptionInfo(type, vector, withCode), withCode ? errorCode : 0)
  }

  /** VM entry's event injection. (SDM Vol. 3C, "Event Injection") */
  private deliver(info: number, errorCode: number): void {
    const { core, vmcs } = this
    vmcs.write32('entryInterruptionInfo', info)
    vmcs.write32('entryExceptionErrorCode', errorCode)
    this.activity = 'active'
    const type = interruptionType(info)
    const delivery = deliver(core, {
      kind:
        type === InterruptionType.externalInterrupt
          ? EVENT.external
          : type === InterruptionType.nmi
            ? EVENT.nmi
            : type === InterruptionType.softwareException
              ? EVENT.softwareException
              : EVENT.exception,
      vector: interruptionVector(info),
      errorCode,
      hasErrorCode: (info & 0x800) !== 0,
      length: 0,
    })
    core.set32(S.exit, EXIT.lookup)
    vmcs.write32('entryInterruptionInfo', 0)
    if (delivery === 'shutdown') this.activity = 'shutdown'
  }

  /** @hot Something may be pending since the last look: see to it that the guest comes out once it can take it. */
  private noticeInterrupts(): void {
    if (!this.ports.interrupts.hasPending(this.index) && this.ports.interrupts.signals(this.index) === 0) return
    this.core.set32(S.attention, 1)
    if (this.core.get32(S.flags) & FLAG.IF || this.ports.interrupts.signals(this.index) !== 0) this.yield()
  }

  // --- what handlers ask for ---

  /** End this VM. */
  fail(message: string): typeof LEFT {
    this.failure ??= message
    this.core.set32(S.exit, EXIT.stop)
    this.yield()
    return LEFT
  }
  private yield(): void {
    if (!this.running) return
    this.yielded = true
    this.processor.yield()
  }
  private failed(): VcpuExit {
    this.failureExit.message = this.failure!
    this.failureExit.rip = this.core.get64(S.rip)
    return this.failureExit
  }
  heed(outcome: PagingOutcome): void {
    if (outcome.next === 'failure') this.fail(outcome.message)
  }
  shutdown(): void {
    this.activity = 'shutdown'
    this.asked = this.shutdownExit
  }
  leaveForHypercall(): typeof LEFT {
    const { core, hypercallExit } = this
    hypercallExit.number = core.register(RAX)
    const { registers } = this.abiVcpu
    const values = [registers.rbx, registers.rcx, registers.rdx, registers.rsi, registers.rdi]
    values.forEach((value, i) => (hypercallExit.arguments[i] = value))
    this.asked = hypercallExit
    core.set64(S.rip, core.nextRip())
    core.set32(S.exit, EXIT.stop)
    return LEFT
  }
  expectRootWrite(expected: boolean): void {
    this.rootWritten = expected
    this.keepsTranslations = expected && this.core.arg(1) >> 63n === 1n
  }
  takeRootWrite(): boolean {
    const { rootWritten } = this
    this.rootWritten = false
    return rootWritten
  }
  setFaultAddress(low: number, high: number): void {
    this.faultWords[0] = low
    this.faultWords[1] = high
  }
  get faultAddress(): bigint {
    return this.fault[0]!
  }

  private controlsChanged(): void {
    this.controls.refresh(this.vmcs)
    // Writes to memory come past the hardware's tables only where those are the hypervisor's.
    this.surroundings.onTableWrite = this.pagingPort.intercepts.pageFault
      ? (address, size) => this.heed(this.ports.paging.onTableUpdate(this.pagingPort, address, size))
      : undefined
  }
  /** An exit that no door of the processor reports. */
  private count(reason: 'init' | 'startup'): void {
    this.accounting.begin()
    this.accounting.end(reason)
  }

  // --- accesses that a device deferred ---

  private deferredExit({ kind, write, address, size, value }: Deferred): VcpuExit {
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
  private finishDeferred(deferred: Deferred): void {
    const { data } = deferred.kind === 'portIo' ? this.portExit : this.mmioExit
    this.surroundings.deferred = undefined
    this.surroundings.complete(deferred, data)
  }

  // --- the Vcpu contract ---

  get instructionsRetired(): number {
    return this.processor.retired
  }

  kick(): void {
    this.kicked = true
    this.yield()
  }

  inject(event: VcpuEvent): void {
    this.queued[event.kind] = event
    this.yield()
  }

  get interruptWindow(): boolean {
    const { core } = this
    return (
      (core.get32(S.flags) & FLAG.IF) !== 0 &&
      core.get32(S.shadow) === 0 &&
      !isInterruptionValid(this.vmcs.read32('entryInterruptionInfo'))
    )
  }

  completeHypercall(result: bigint): void {
    this.core.set64(gpr(RAX), result)
  }

  translate(address: bigint): number | undefined {
    return guestTranslate(this.ports.guestMemory, this.pagingPort.guestPaging(), address)
  }

  readState(): VcpuState {
    return { ...readRegisters(this.core), activity: this.activity }
  }
  writeState(patch: VcpuStatePatch): void {
    writeRegisters(this.core, patch)
    if (patch.activity) this.activity = patch.activity
    this.vmcs.generation++
  }

  reset(kind: 'powerUp' | 'init'): void {
    resetProcessor(this.core, kind)
    if (kind === 'powerUp') this.identify()
    this.activity = this.index === 0 ? 'active' : 'waitForStartup'
    delete this.queued.exception
    delete this.queued.nmi
    delete this.queued.interrupt
    this.surroundings.deferred = undefined
    this.asked = undefined
    this.failure = undefined
    this.vmcs.generation++
  }

  /** Only the first processor is the bootstrap processor. (SDM Vol. 3A, "IA32_APIC_BASE") */
  private identify(): void {
    const base = this.ports.interrupts.readMsr(this.index, 0x1b)
    const bootstrap = this.index === 0 ? 0x100n : 0n
    this.core.set64(S.apicBase, base ?? 0xfee0_0800n | bootstrap)
  }

  save(): Snapshot {
    const { msrs, dr, ...rest } = this.readState()
    const plain = rest as unknown as Record<string, SnapshotValue>
    return {
      type: 'vcpu.vmx',
      version: 1,
      data: {
        state: { ...plain, dr: [...dr], msrs: [...msrs].map(([index, value]) => [index, value]) },
        tscOffset: this.core.get64(S.tscOffset),
        queued: Object.values(this.queued).map((event) => ({ ...event }) as SnapshotValue),
      },
    }
  }

  restore(snapshot: Snapshot): void {
    if (snapshot.type !== 'vcpu.vmx' || snapshot.version !== 1) {
      throw new NonrootError({
        code: 'snapshot.mismatch',
        message: `a VMX vCPU cannot restore ${snapshot.type} version ${snapshot.version}`,
      })
    }
    const { state, tscOffset, queued } = snapshot.data as unknown as {
      state: Omit<VcpuState, 'msrs'> & { msrs: [number, bigint][] }
      tscOffset: bigint
      queued: VcpuEvent[]
    }
    this.reset('powerUp')
    this.writeState({ ...state, msrs: new Map(state.msrs) })
    this.core.set64(S.tscOffset, tscOffset)
    for (const event of queued) this.inject(event)
  }

  /** Bring the VMCS region up to date with the processor. */
  synchronise(): void {
    this.guestState.synchronise(this.vmcs)
  }

  private createAbiVcpu(): GuestAbiVcpu {
    const { core } = this
    const registers = {} as GuestAbiVcpu['registers']
    GENERAL_REGISTERS.forEach((name, n) =>
      Object.defineProperty(registers, name, {
        enumerable: true,
        get: () => core.get64(gpr(n)),
        set: (value: bigint) => core.set64(gpr(n), value),
      }),
    )
    const translate = (address: bigint): number | undefined => this.translate(address)
    return {
      index: this.index,
      registers,
      get cpl() {
        return core.get32(S.cpl)
      },
      get longMode() {
        return (core.get32(S.mode) & 3) === 2
      },
      translate,
    }
  }

  sampleMetrics(): void {
    const scope = this.ports.metrics.scope('tiers')
    for (const [name, value] of Object.entries(tierStatistics(this.processor))) {
      const { unit, help } = TIER_METRICS[name as TierMetric]
      scope.gauge(name, help, unit).value = value
    }
  }

  dispose(): void {
    this.core.nonRoot = undefined
    this.vmcs.resident = undefined
    this.host.freeFrame(Number(this.vmcs.read('msrBitmaps')) as Hpa)
    this.vmcs.dispose()
    this.processor.dispose()
  }
}
