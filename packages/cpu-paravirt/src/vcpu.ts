/**
 * A paravirtual vCPU: the loop between the guest and its hypervisor. Guest code runs until an exception; what becomes of it is in
 * exceptions.ts, how the guest is entered in entry/frames.ts.
 */

import { NonrootError } from '@nonroot/contracts'
import type {
  Counter,
  GuestAbiVcpu,
  HostMemory,
  KickAddress,
  Snapshot,
  TableCalls,
  X86Vcpu,
  VcpuEvent,
  VcpuExit,
  X86VcpuPorts,
  VcpuState,
  VcpuStatePatch,
} from '@nonroot/contracts'
import {
  EXIT,
  FLAG,
  gpr,
  JUMPED,
  LEFT,
  MODE,
  Processor,
  RAX,
  RCX,
  readFlags,
  readRegisters,
  resetProcessor,
  S,
  SEGMENT,
  setSegment,
  switchRoot,
  updatePaging,
  writeRegisters,
  VECTOR,
} from '@nonroot/x86'
import type { Core, Outcome, ProcessorOptions, StopReason } from '@nonroot/x86'
import { createAbiVcpu, hypercall, sampleTiers } from '@nonroot/vcpu'
import { ENTRIES, type Deprivileged, type Entry } from './deprivileged.ts'
import { TableStore } from './emulation/table-store.ts'
import { Frames } from './entry/frames.ts'
import { handleException } from './exceptions.ts'
import { CR0_FIXED, CR4_START, EFER_VALUE, highOf, INFO, lowOf, PAT, R11, XCR0_START } from './facts.ts'
import { GuestState } from './guest-state.ts'
import { ExceptionHooks } from './hooks.ts'
import { ParavirtPagingPort } from './paging-port.ts'
import { VcpuForAbi, type VcpuUnderAbi } from './pv-vcpu.ts'
import { Surroundings } from './surroundings.ts'

const CODE_64 = 2
/** -ENOSYS. */
const NO_SUCH_CALL = 0xffff_ffff_ffff_ffdan

/** How a vCPU sleeps: until an event that it may take, or until anything wakes it. `woken`: it did. */
type Sleep = 'no' | 'untilEvent' | 'untilWoken' | 'woken'

export class ParavirtVcpu implements X86Vcpu, Deprivileged, VcpuUnderAbi {
  readonly index: number
  readonly ports: X86VcpuPorts
  readonly core: Core
  readonly tables: TableCalls
  readonly state = new GuestState()
  readonly hooks: ExceptionHooks
  readonly surroundings: Surroundings
  readonly frames: Frames
  readonly pv: VcpuForAbi
  readonly abiVcpu: GuestAbiVcpu
  isUp: boolean

  readonly #processor: Processor
  readonly #tableStore: TableStore
  #running = false
  #yielded = false
  #sleep: Sleep = 'no'
  #repeats = false
  #failure: string | undefined
  /** Exceptions so far: each counts as an instruction, so that a guest which only faults uses its time up. */
  #exceptions = 0
  readonly #budget = { reason: 'budget' as const }
  readonly #halt = { reason: 'halt' as const }
  readonly #failed = { reason: 'failure' as const, message: '', rip: 0n }

  readonly #bounces: readonly Counter[]
  readonly #entries: Readonly<Record<string, Counter>>
  readonly #emulated = new Map<string, Counter>()
  readonly #stores: Counter
  readonly #storesRefused: Counter
  readonly #hypercalls: Counter
  readonly #toggles: Counter

  constructor(index: number, host: HostMemory, ports: X86VcpuPorts, tables: TableCalls, options: ProcessorOptions) {
    this.index = index
    this.ports = ports
    this.tables = tables
    this.isUp = index === 0
    this.surroundings = new Surroundings(host, ports, index, tables)
    this.#processor = new Processor(this.surroundings, options)
    this.core = this.#processor.core
    this.core.hooks = this.hooks = new ExceptionHooks(this.core)
    this.hooks.onSystemCall = () => this.#systemCall()
    this.frames = new Frames(this.core, this.state, (reason) => this.crash(reason))
    this.#tableStore = new TableStore(this)
    this.pv = new VcpuForAbi(this)
    this.abiVcpu = Object.assign(
      createAbiVcpu(index, this.core, (address) => this.translate(address)),
      { pv: this.pv },
    )

    const { metrics } = ports
    const bounces = metrics.scope('bounces')
    this.#bounces = Array.from({ length: 32 }, (_, vector) =>
      bounces.counter(`exception${vector}`, `entries of the guest kernel for exception ${vector}`),
    )
    this.#entries = Object.fromEntries(
      ENTRIES.map((name) => [name, bounces.counter(name, `entries of the guest kernel for ${name}`)]),
    )
    this.#stores = metrics.counter('tableStores', 'stores to page tables carried out for the guest kernel')
    this.#storesRefused = metrics.counter('tableStoresRefused', 'stores to page tables that validation refused')
    this.#hypercalls = metrics.counter('hypercalls', 'calls of the guest kernel')
    this.#toggles = metrics.counter('modeToggles', 'changes between guest kernel and user program')

    this.#initialise()
    ports.paging.attach(new ParavirtPagingPort(index, this.core, this.state, this.frames))
    ports.abi.addVcpu?.(this.abiVcpu)
  }

  /** Long mode at CPL 3, no interrupt table, no task segment: what is not allowed traps. */
  #initialise(): void {
    const { core } = this
    core.set64(S.cr0, BigInt(CR0_FIXED >>> 0))
    core.set64(S.cr4, BigInt(CR4_START))
    core.set64(S.xcr0, XCR0_START)
    core.set64(S.efer, BigInt(EFER_VALUE.hardware))
    core.set64(S.pat, PAT)
    core.set32(S.cpl, 3)
    const table = this.tables.descriptorTable(this.index)
    setSegment(core, SEGMENT.gdtr, 0, lowOf(table), highOf(table), 0xffff, 0)
    setSegment(core, SEGMENT.idtr, 0, 0, 0, 0, 0)
    setSegment(core, SEGMENT.tr, 0, 0, 0, 0, 0x8b)
    this.pv.descriptorsChanged(0)
    this.startAt(0, 0)
    core.set32(S.flags, 0x202)
    updatePaging(core)
  }

  /** Flat segments, or the selectors given. */
  startAt(cs: number, ss: number): void {
    this.frames.selectors.loadFlat()
    if (cs > 3 || ss > 3) {
      try {
        this.frames.selectors.load(cs | 3, ss | 3)
      } catch {
        // Flat ones do: selectors that are no good are met when they are used.
      }
    }
    for (const n of [SEGMENT.ds, SEGMENT.es, SEGMENT.fs, SEGMENT.gs]) {
      const base = this.core.segmentBase(n)
      setSegment(this.core, n, 0, n >= SEGMENT.fs ? lowOf(base) : 0, n >= SEGMENT.fs ? highOf(base) : 0, 0, 0x1_0000)
    }
    writeRegisters(this.core, {})
  }

  // The loop

  run(budget: number): VcpuExit {
    const end = this.instructionsRetired + budget
    this.#running = true
    this.#processor.kicks.enter()
    if (this.#sleep === 'untilWoken') this.#sleep = 'woken'
    try {
      return this.#loop(end)
    } finally {
      this.#running = false
      this.#processor.kicks.leave()
    }
  }

  #loop(end: number): VcpuExit {
    const processor = this.#processor
    for (;;) {
      if (this.#failure !== undefined) return this.#fail()
      if (processor.kicks.take()) return this.#budget
      if (!this.isUp) return this.#halt
      this.#enter()
      if (this.#failure !== undefined) return this.#fail()
      if (this.#isAsleep()) return this.#halt
      const left = end - this.instructionsRetired
      if (left <= 0) return this.#budget
      const before = processor.retired
      let stop: StopReason | undefined = processor.run(left)
      if (stop === 'budget' && !this.#yielded) {
        // The block at RIP is longer than what is left: one by one.
        if (processor.retired === before) stop = processor.step()
        else return this.#budget
      }
      this.#yielded = false
      if (stop === 'stop') this.#handle()
    }
  }

  /** Delivers pending events. Called after each change of what the guest accepts. */
  #enter(): void {
    const { state, core } = this
    if (state.nmiPending && !state.nmiMasked && state.callbacks.nmi.address !== 0n) {
      state.nmiPending = false
      state.nmiMasked = true
      this.count('nmi')
      this.frames.bounce(state.callbacks.nmi, undefined, 'no NMI handler')
    }
    if (!this.#mayTakeEvent()) return
    this.#sleep = 'no'
    const { event } = state.callbacks
    this.count('event')
    this.frames.bounce(event, undefined, 'an event is pending and there is no callback for it')
    core.u8[state.info + INFO.upcallMask] = 1
  }

  #mayTakeEvent(): boolean {
    const { info } = this.state
    const { u8 } = this.core
    return info !== 0 && u8[info + INFO.upcallPending] !== 0 && u8[info + INFO.upcallMask] === 0
  }

  #isAsleep(): boolean {
    if (this.#sleep === 'woken') this.#sleep = 'no'
    return this.#sleep !== 'no'
  }

  #handle(): void {
    const { hooks } = this
    const vector = hooks.take()
    // A call that is to be looked at from outside.
    if (vector < 0) return
    this.#exceptions++
    handleException(this, vector, hooks.errorCode, hooks.length)
  }

  storeToTable(address: bigint, machine: number): boolean {
    const isDone = this.#tableStore.run(address, machine)
    if (isDone) this.#stores.value++
    else this.#storesRefused.value++
    return isDone
  }

  stepOnce(): StopReason | undefined {
    return this.#processor.step()
  }

  // What handlers ask for

  /** SYSCALL, RIP being at it: settled in the midst of guest code, which goes on wherever RIP then is. */
  #systemCall(): Outcome {
    const { core, state } = this
    const { syscall } = state.callbacks
    if (state.inKernel) this.#hypercall()
    else if (syscall.address === 0n) return core.raise(VECTOR.UD)
    else {
      core.settleRip()
      this.#skip()
      this.count('syscall')
      this.frames.systemCall(syscall)
    }
    if (this.#failure === undefined) this.#enter()
    if (this.#failure !== undefined || this.#sleep !== 'no' || this.#processor.kicks.isRequested || !this.isUp)
      return this.#leave(EXIT.stop)
    return core.get32(S.flags) & FLAG.TF || core.debugging ? this.#leave(EXIT.none) : JUMPED
  }
  #leave(exit: number): typeof LEFT {
    this.core.set32(S.exit, exit)
    return LEFT
  }

  /** RIP behind the instruction. */
  #skip(): void {
    const { core } = this
    const length = core.recordLength()
    const low = (core.get32(S.rip) + length) | 0
    core.set32(S.rip, low)
    const carries = low >>> 0 < length && (core.get32(S.mode) & MODE.codeSize) === CODE_64
    if (carries) core.set32(S.rip + 4, core.get32(S.rip + 4) + 1)
  }

  #hypercall(): void {
    const { core } = this
    core.settleRip()
    const [before, beforeHigh] = [core.get32(S.rip), core.get32(S.rip + 4)]
    this.#skip()
    const [low, high] = [core.get32(S.rip), core.get32(S.rip + 4)]
    core.set32(gpr(RCX), low)
    core.set32(gpr(RCX) + 4, high)
    core.set32(gpr(R11), readFlags(core))
    core.set32(gpr(R11) + 4, 0)
    this.#hypercalls.value++
    this.#repeats = false
    const result = hypercall(this.ports, this.abiVcpu)
    if (this.#repeats) {
      core.set32(S.rip, before)
      core.set32(S.rip + 4, beforeHigh)
    } else if (result === 'unknown') core.set64(gpr(RAX), NO_SUCH_CALL)
  }

  returnFromTrap(): void {
    const fault = this.frames.returnFromTrap()
    if (!fault) return
    this.countException(fault.vector)
    this.frames.exception(fault.vector, fault.errorCode)
  }

  sleep(untilWoken: boolean): void {
    this.#sleep = untilWoken ? 'untilWoken' : 'untilEvent'
  }
  repeat(): void {
    this.#repeats = true
  }
  setUp(up: boolean): void {
    this.isUp = up
    if (!up) this.kick()
  }
  crash(reason: string): void {
    this.#failure ??= reason
    this.#yield()
  }
  #fail(): VcpuExit {
    this.#failed.message = this.#failure!
    this.#failed.rip = this.core.get64(S.rip)
    return this.#failed
  }

  readFaultAddress(): bigint {
    return this.core.view.getBigUint64(this.state.info + INFO.cr2, true)
  }
  writeFaultAddress(value: bigint): void {
    this.core.view.setBigUint64(this.state.info + INFO.cr2, value, true)
  }

  // Counting

  count(entry: Entry): void {
    this.#entries[entry]!.value++
  }
  countException(vector: number): void {
    this.#bounces[vector & 31]!.value++
  }
  countEmulated(name: string): void {
    let counter = this.#emulated.get(name)
    if (!counter) {
      counter = this.ports.metrics.scope('emulated').counter(name, `trapped instructions carried out: ${name}`)
      this.#emulated.set(name, counter)
    }
    counter.value++
  }

  // The Vcpu contract

  get instructionsRetired(): number {
    return this.#processor.retired + this.#exceptions
  }
  get firstInstructionAt(): number | undefined {
    return this.#processor.firstBlockAt
  }
  get interruptWindow(): boolean {
    const { info } = this.state
    return this.#sleep === 'untilWoken' || (info !== 0 && this.core.u8[info + INFO.upcallMask] === 0)
  }

  get kickAddress(): KickAddress {
    return this.#processor.kicks.address
  }
  kick(): void {
    this.#processor.kicks.request()
    this.#yield()
  }
  #yield(): void {
    if (!this.#running) return
    this.#yielded = true
    this.#processor.yield()
  }

  inject(event: VcpuEvent): void {
    if (event.kind === 'nmi') this.pv.sendNmi()
    else if (event.kind === 'exception') {
      if (event.cr2 !== undefined) this.writeFaultAddress(event.cr2)
      this.frames.exception(event.vector, event.errorCode ?? 0)
    }
  }
  completeHypercall(result: bigint): void {
    this.core.set64(gpr(RAX), result)
  }

  /** By the tables of the mode that runs. */
  translate(address: bigint): number | undefined {
    const { core } = this
    let table = Number(core.get64(S.cr3))
    for (let level = 4; level > 0; level--) {
      const at = table + Number((address >> BigInt(12 + (level - 1) * 9)) & 0x1ffn) * 8
      if (at + 8 > core.u8.length) return undefined
      const entry = core.view.getBigUint64(at, true)
      if (!(entry & 1n)) return undefined
      table = Number(entry & 0xf_ffff_ffff_f000n)
    }
    const place = this.tables.addressOf(table / 4096)
    return place === undefined ? undefined : place + Number(address & 0xfffn)
  }

  readState(): VcpuState {
    return { ...readRegisters(this.core), activity: this.isUp ? 'active' : 'waitForStartup' }
  }
  /** At the start of day: a root comes with the stack that handlers are to use. */
  writeState(patch: VcpuStatePatch): void {
    const { cr3, activity, ...registers } = patch
    writeRegisters(this.core, registers)
    this.core.set32(S.cpl, 3)
    if (activity) this.isUp = activity === 'active' || activity === 'halted'
    if (cr3 === undefined) return
    if (patch.rsp !== undefined) this.pv.setKernelStack(0, patch.rsp)
    const status = this.tables.setRoot(this.index, 'kernel', Number(cr3 / 4096n))
    if (status !== 'ok') this.crash(`its first root table was refused: ${status}`)
    this.frames.loadRoots()
    writeRegisters(this.core, {})
  }
  reset(): void {
    const { info } = this.state
    switchRoot(this.core, 0)
    resetProcessor(this.core, 'powerUp')
    this.state.reset()
    this.state.info = info
    this.isUp = this.index === 0
    this.#failure = undefined
    this.#sleep = 'no'
    this.hooks.take()
    this.#initialise()
  }

  save(): Snapshot {
    return notSaved()
  }
  restore(): void {
    notSaved()
  }

  sampleMetrics(): void {
    this.#toggles.value = this.frames.toggles
    sampleTiers(this.#processor, this.ports.metrics)
  }

  dispose(): void {
    this.core.hooks = undefined
    this.#processor.dispose()
  }
}

const notSaved = (): never => {
  throw new NonrootError({
    code: 'snapshot.mismatch',
    message: 'a paravirtual vCPU cannot be saved: its tables hold machine addresses',
    thing: 'stack.cpu',
    remedy: 'save guests of CPU mode vmx',
  })
}
